"""UPG files in Hugging Face transformers: weights stay compressed, and products use the library's kernels.

    import upg.transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    upg.transformers.export("phi-4.upg", "phi-4-upg")
    model = AutoModelForCausalLM.from_pretrained("phi-4-upg")
    tokenizer = AutoTokenizer.from_pretrained("phi-4-upg")

Importing this module registers the quantization method "upg" with transformers (5.0 or later). Models run on the CPU;
with ``quantization_config=UpgConfig(dequantize=True)`` weights are decoded once, and the model is as any other.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers import auto as _auto
from transformers.utils.quantization_config import QuantizationConfigMixin

from . import _upg
from ._errors import UnsupportedError
from ._files import inspect
from ._matrix import PackedMatrix, open_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["UpgConfig", "UpgEmbedding", "UpgLinear", "UpgQuantizer", "export"]

_DENSE = frozenset({"bf16", "f16", "f32"})


def export(path: str | os.PathLike[str], directory: str | os.PathLike[str], *, copy: bool = False) -> None:
    """Writes a directory for ``from_pretrained``: configuration, tokenizer, and the UPG file as model.safetensors.

    A UPG file is a safetensors file, so it is linked by its absolute path, or copied with ``copy``. The directory must
    not exist or be empty, and appears only when it is whole. Raises ValueError for what is no UPG file,
    FileExistsError for a directory that holds something.
    """
    source = pathlib.Path(path)
    target = pathlib.Path(directory)
    if inspect(source).format == "checkpoint":
        raise ValueError(f"{source} is a checkpoint directory: transformers loads it as it is")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already and not empty: name another directory")
    texts = _upg.model_texts(os.fspath(source))
    config = json.loads(texts["config.json"])
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"  # of activations: what the kernels compute with
    config["quantization_config"] = {"quant_method": "upg"}
    texts["config.json"] = json.dumps(config, indent=2) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=target.name + ".tmp", dir=target.parent))
    try:
        made.chmod(0o755)
        for name, text in texts.items():
            if text:
                (made / name).write_text(text, encoding="utf-8")
        if copy:
            shutil.copyfile(source, made / "model.safetensors")
        else:
            (made / "model.safetensors").symlink_to(source.resolve())
        made.rename(target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


@register_quantization_config("upg")
class UpgConfig(QuantizationConfigMixin):
    """How a UPG file is loaded.

    ``dequantize``: decode all weights into ordinary modules. ``float_activations``: exact products with trellis
    weights, slower; otherwise activations are rounded to int8 in blocks of 32, as the engine does.
    """

    def __init__(self, dequantize: bool = False, float_activations: bool = False, **_: Any) -> None:
        self.quant_method = "upg"
        self.dequantize = dequantize
        self.float_activations = float_activations

    def get_loading_attributes(self) -> dict[str, Any]:
        return {"dequantize": self.dequantize, "float_activations": self.float_activations}


# from_pretrained(quantization_config=...) of a quantized checkpoint heeds the types of this list alone.
_auto.LOADING_ATTRIBUTES_CONFIG_TYPES += (UpgConfig,)


class _Packed(nn.Module):
    """A module around a compressed matrix, which is no parameter: it stays in the mapped file."""

    def __init__(self, matrix: PackedMatrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = matrix
        self.dtype = dtype

    @property
    def weight(self) -> torch.Tensor:
        """All weights, decoded anew at each access."""
        return torch.from_numpy(self.matrix.to_dense()).to(self.dtype)

    def extra_repr(self) -> str:
        rows, cols = self.matrix.shape
        return f"{rows} x {cols}, {self.matrix.codec}, {self.matrix.bits_per_weight:.3f} bits per weight"


class UpgLinear(_Packed):
    """A linear layer whose weights stay compressed. Inputs that need gradients get them, through decoded weights."""

    def __init__(
        self, matrix: PackedMatrix, bias: nn.Parameter | None, dtype: torch.dtype, float_activations: bool
    ) -> None:
        super().__init__(matrix, dtype)
        self.out_features, self.in_features = matrix.shape
        self.bias = bias
        self.float_activations = float_activations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            raise UnsupportedError(
                "compressed weights run on the CPU: load the model with quantization_config=UpgConfig(dequantize=True)"
            )
        if torch.is_grad_enabled() and x.requires_grad:
            return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)
        rows = x.detach().reshape(-1, self.in_features).to(torch.float32).contiguous()
        y = torch.from_numpy(self.matrix._matrix.apply(rows.numpy(), self.float_activations))
        y = y.reshape(*x.shape[:-1], self.out_features)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype)


class UpgEmbedding(_Packed):
    """An embedding whose rows are decoded as they are looked up."""

    def __init__(self, matrix: PackedMatrix, scale: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, dtype)
        self.num_embeddings, self.embedding_dim = matrix.shape
        self.scale = scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self.matrix.take_rows(ids.reshape(-1).cpu().numpy())
        y = torch.from_numpy(rows).to(self.dtype).reshape(*ids.shape, self.embedding_dim)
        return y if self.scale is None else y * self.scale.to(y.dtype)


@register_quantizer("upg")
class UpgQuantizer(HfQuantizer):
    """Puts compressed modules in the place of a model's linear layers and embeddings before its weights are loaded."""

    quantization_config: UpgConfig

    def validate_environment(self, *_: Any, device_map: Any = None, **__: Any) -> None:
        if not self.pre_quantized:
            raise ValueError("upg compresses with upg.compress or `upg compress`, not while a model is loaded")
        places = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
        if not self.quantization_config.dequantize and not {str(p) for p in places} <= {"None", "cpu", "auto"}:
            raise ValueError("UPG models run on the CPU in transformers, or anywhere with UpgConfig(dequantize=True)")

    def update_device_map(self, device_map: Any) -> Any:
        return {"": "cpu"} if device_map == "auto" else device_map

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        if not checkpoint_files or len(checkpoint_files) != 1:
            raise ValueError("a UPG model is one file, model.safetensors, as upg.transformers.export makes it")
        path = checkpoint_files[0]
        dtype = kwargs.get("dtype") or torch.float32
        tied = dict(model.all_tied_weights_keys)
        for tensor in inspect(path).tensors:
            if len(tensor.shape) != 2 or tensor.codec in _DENSE:
                continue
            matrix = open_matrix(path, tensor.name)
            names = [tensor.name, *(target for target, source in tied.items() if source == tensor.name)]
            for name in names:
                self._replace(model, name, matrix, dtype)
                model.all_tied_weights_keys.pop(name, None)
        ignored = set(model._keys_to_ignore_on_load_unexpected or ())
        # Stored parts, which the modules read themselves, and the tokenizer.
        model._keys_to_ignore_on_load_unexpected = {*ignored, rf"\.weight\.({_PARTS})$", r"^upg\.tokenizer$"}

    def _replace(self, model: PreTrainedModel, name: str, matrix: PackedMatrix, dtype: torch.dtype) -> None:
        path, _, leaf = name.rpartition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            module = None
        made: nn.Module
        if leaf == "weight" and isinstance(module, nn.Linear):
            made = UpgLinear(matrix, module.bias, dtype, self.quantization_config.float_activations)
        elif leaf == "weight" and isinstance(module, nn.Embedding):
            scale = getattr(module, "embed_scale", None)
            if scale is None and type(module) is not nn.Embedding:
                raise UnsupportedError(f"{name}: {type(module).__name__} does more than look up; {_INSTEAD}")
            made = UpgEmbedding(matrix, _scale(module), dtype)
        else:
            raise UnsupportedError(f"{name}: transformers keeps this weight in another form; {_INSTEAD}")
        if tuple(module.weight.shape) != matrix.shape:
            raise ValueError(f"{name}: is {list(matrix.shape)}, the model needs {list(module.weight.shape)}")
        model.set_submodule(path, made)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        return self._dequantize(model) if self.quantization_config.dequantize else model

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | None = None) -> PreTrainedModel:
        decoded: dict[int, nn.Parameter] = {}  # tied modules share one
        for name, module in list(model.named_modules()):
            if not isinstance(module, (UpgLinear, UpgEmbedding)):
                continue
            weight = decoded.setdefault(
                id(module.matrix), nn.Parameter(module.weight.to(dtype or module.dtype), requires_grad=False)
            )
            made: nn.Module
            if isinstance(module, UpgLinear):
                made = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
                made.bias = module.bias
            else:
                made = _ScaledEmbedding(module.num_embeddings, module.embedding_dim, device="meta")
                made.scale = module.scale
            made.weight = weight
            model.set_submodule(name, made)
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return False  # export() writes the directory

    @property
    def is_trainable(self) -> bool:
        return False


class _ScaledEmbedding(nn.Embedding):
    scale: torch.Tensor | None = None

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = super().forward(ids)
        return y if self.scale is None else y * self.scale.to(y)


def _scale(module: nn.Module) -> torch.Tensor | None:
    """The factor of Gemma's embeddings; the module's own buffer is on the meta device now."""
    scale = getattr(module, "scalar_embed_scale", None)
    return None if scale is None else torch.tensor(float(scale))


_PARTS = (
    r"(residual_)?(values|delta_indices|row_pointers|scales)|prime_indices|codes|block_scales|row_scales|steps|codebook"
)
_INSTEAD = "use upg.decompress and load the directory that it writes"
