"""What a golden of a published layout is made of, and how it is made with transformers.

The configuration is written as the publishers of the family write it (rotary options at the top, "torch_dtype"), with
smaller numbers. The weights are random. transformers then loads that folder, so that names and configuration are what
it understands, and computes the logits in float32.
"""
import dataclasses
import json
import pathlib
import re
import tempfile

import torch
from safetensors.torch import load_file, save_file

GREEDY_TOKENS = 12
LEAST_MARGIN = 0.01  # between the two likeliest tokens of a greedy step: rounding must not decide
NOISE = 2.0**-11  # relative, on every element between layers: more than an f16 cache does
LARGEST_EFFECT = 2.0**-6  # of that noise, as a share of the largest |logit|. A changed choice of experts is above it
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
TORCH_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


@dataclasses.dataclass
class Row:
    seed: int
    dtype: str  # of DTYPES
    config: dict
    prompt: int = 40
    # pattern of a tensor's name: factor on its usual size
    gains: dict = dataclasses.field(default_factory=dict)
    # Tokens below are not in the prompt.
    first_token: int = 3


def fill(name, weight, row, generator):
    """Random values: matrices keep the size of what they multiply, norms are noise around what leaves it alone."""
    noise = torch.randn(weight.shape, generator=generator)
    gain = next((g for pattern, g in row.gains.items() if re.search(pattern, name)), 1.0)
    if name.endswith("e_score_correction_bias"):
        return 0.15 * gain * noise
    if name.endswith("bias"):
        return 0.3 * gain * noise
    if weight.dim() == 1:
        around = 0.0 if row.config["model_type"].startswith("gemma") else 1.0
        return around + 0.3 * gain * noise
    tied = row.config.get("tie_word_embeddings", row.config["model_type"].startswith("gemma"))
    if "embed_tokens" in name and not tied:
        return gain * noise
    return gain * weight.shape[-1]**-0.5 * noise


def write_config(folder, row):
    config = dict(row.config, torch_dtype=TORCH_NAMES[row.dtype])
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_checkpoint(folder, tensors, row):
    """The correction of the choice of experts is published in float32 whatever the rest is."""
    tensors = {name: (t if name.endswith("e_score_correction_bias") else t.to(DTYPES[row.dtype])).contiguous()
               for name, t in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def load(folder):
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                       experts_implementation="eager", output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(what):
            raise SystemExit(f"{folder.name}: {what}: {info[what]}")
    return model.eval()


def make_checkpoint(folder, row, generator):
    """Names and shapes are those that transformers gives a saved checkpoint: the published ones."""
    from transformers import AutoConfig, AutoModelForCausalLM
    write_config(folder, row)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    buffers = [(n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *buffers]:
            weight.copy_(fill(name, weight, row, generator))
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        write_checkpoint(folder, load_file(pathlib.Path(saved) / "model.safetensors"), row)


class TransformersModel:
    """Runs a checkpoint. A Grok1 or other model that transformers lacks has the same three functions."""

    def __init__(self, folder):
        self.model = load(folder)

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.as_tensor(ids)[None], use_cache=False).logits[0]

    def noisy_logits(self, ids, generator):
        """With relative noise on what goes from layer to layer."""
        def disturb(_module, _args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden * (1 + NOISE * torch.randn(hidden.shape, generator=generator))
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        places = [self.model.model.embed_tokens, *self.model.model.layers]
        hooks = [place.register_forward_hook(disturb) for place in places]
        try:
            return self.logits(ids)
        finally:
            for hook in hooks:
                hook.remove()

    def greedy(self, ids, n):
        """The continuation with the model's own cache."""
        ids, out, cache = torch.as_tensor(ids)[None], [], None
        with torch.no_grad():
            while len(out) < n:
                result = self.model(ids, past_key_values=cache, use_cache=True)
                cache = result.past_key_values
                ids = result.logits[:, -1:].argmax(-1)
                out.append(int(ids))
        return out


def flaw(model, row, prompt, generator):
    """(why this prompt will not do or None, logits of the prompt, continuation, least margin, effect of noise)"""
    logits = model.logits(prompt)
    greedy = model.greedy(prompt, GREEDY_TOKENS)
    if len(set(greedy)) < 5:
        return "continuation stands still", logits, greedy, 0, 0
    sequence = [*prompt, *greedy[:-1]]
    whole = model.logits(sequence)
    effect = max(float((model.noisy_logits(sequence, generator) - whole).abs().max()) for _ in range(4))
    effect /= float(whole.abs().max())
    if effect > LARGEST_EFFECT:
        return f"noise changes {effect:.4f} of the logits", logits, greedy, 0, effect
    steps = whole[len(prompt) - 1:]
    if steps.argmax(-1).tolist() != greedy:
        return "the cache changes the continuation", logits, greedy, 0, effect
    top = steps.topk(2).values
    margin = float((top[:, 0] - top[:, 1]).min())
    if margin < max(LEAST_MARGIN, effect * float(whole.abs().max())):
        return f"near tie of {margin:.4f}", logits, greedy, margin, effect
    return None, logits, greedy, margin, effect


def make_golden(folder, row, model, generator):
    flaws = []
    for _ in range(300):
        prompt = torch.randint(row.first_token, row.config["vocab_size"], (row.prompt,), generator=generator).tolist()
        why, logits, greedy, margin, effect = flaw(model, row, prompt, generator)
        if not why:
            break
        flaws.append(why)
    else:
        raise SystemExit(f"{folder.name}: no prompt will do: {flaws[-20:]}")
    save_file({"input_ids": torch.tensor(prompt, dtype=torch.int32), "logits": logits.float().contiguous(),
               "greedy": torch.tensor(greedy, dtype=torch.int32)}, folder / "golden.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(f"{folder.name}: {size} bytes, logits std {logits.std():.2f}, largest {logits.abs().max():.2f}, "
          f"least margin {margin:.3f}, effect of noise {effect:.5f}, {len(flaws)} prompts were refused")


def make(folder, row):
    generator = torch.Generator().manual_seed(row.seed)
    folder.mkdir(parents=True)
    make_checkpoint(folder, row, generator)
    make_golden(folder, row, TransformersModel(folder), generator)
