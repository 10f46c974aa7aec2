"""Compressed matrices by themselves: MdCSR, the manifold trellis and int8, to and from NumPy and SciPy.

Arrays of stored bytes are views: read-only, without a copy, and they keep their matrix alive. Dense matrices are
float32 [rows, cols]; anything else that NumPy can make of it is converted. Products run without the GIL, on all cores.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _upg
from ._options import ids_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import scipy.sparse
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

#: The first 10,000 primes, uint32: a prime index i stands for the level 2 PRIMES[i] / PRIMES[-1] - 1.
PRIMES: NDArray[np.uint32] = _upg.primes()

# Element types by their safetensors names; bfloat16, which NumPy lacks, is uint16 here.
_TYPES = {"i1": "I8", "u1": "U8", "u2": "U16", "u4": "U32", "f2": "F16", "f4": "F32"}


def _dense(a: ArrayLike, ndim: int, what: str) -> NDArray[np.float32]:
    array = np.ascontiguousarray(a, dtype=np.float32)
    if array.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} dimensions, not the shape {list(array.shape)}")
    return array


class PackedMatrix:
    """A matrix [rows, cols] in some codec. :func:`open_matrix` and the classes made of it make these."""

    __slots__ = ("__weakref__", "_matrix")

    #: The codecs that a class is for; empty: any.
    _codecs: ClassVar[tuple[str, ...]] = ()
    #: Parts that are bfloat16.
    _bf16: ClassVar[frozenset[str]] = frozenset({"row_scales"})

    def __init__(self, matrix: _upg.Matrix) -> None:
        if self._codecs and matrix.codec not in self._codecs:
            raise ValueError(f"the matrix is stored as {matrix.codec}, which is not {type(self).__name__}")
        self._matrix = matrix

    def __repr__(self) -> str:
        rows, cols = self.shape
        return f"<upg.{type(self).__name__} {rows} x {cols}, {self.codec}, {self.bits_per_weight:.3f} bits per weight>"

    @classmethod
    def from_parts(cls, codec: str, shape: Sequence[int], parts: Mapping[str, Any], *, name: str = "matrix") -> Self:
        """A matrix over stored arrays, which are kept, not copied, and must not be changed.

        ``parts``: the arrays by their names in docs/format.md, NumPy's or any that DLPack hands over from the CPU.
        Every rule of the format is checked: raises upg.InvalidFileError, whose message begins with ``name``.
        """
        rows, cols = shape
        stored = [(suffix, cls._type_of(suffix, array), array) for suffix, array in parts.items()]
        return cls(_upg.Matrix.open(name, codec, rows, cols, stored))

    @classmethod
    def _type_of(cls, suffix: str, array: Any) -> str:
        if suffix in cls._bf16:
            return "BF16"
        dtype = array.dtype
        size = dtype.itemsize
        kind = getattr(dtype, "kind", None) or ("f" if dtype.is_floating_point else "i" if dtype.is_signed else "u")
        name = _TYPES.get(f"{kind}{size}")
        if name is None:
            raise ValueError(f"{suffix}: no codec has arrays of {dtype}")
        return name

    @property
    def codec(self) -> str:
        return self._matrix.codec

    @property
    def shape(self) -> tuple[int, int]:
        return self._matrix.rows, self._matrix.cols

    @property
    def nbytes(self) -> int:
        """Of all that is stored."""
        return self._matrix.nbytes

    @property
    def bits_per_weight(self) -> float:
        rows, cols = self.shape
        return 8 * self.nbytes / (rows * cols) if rows * cols else 0.0

    @property
    def parts(self) -> dict[str, NDArray[Any]]:
        """The stored arrays by name, without a copy. bfloat16 is given as uint16."""
        return self._matrix.parts

    def to_dense(self) -> NDArray[np.float32]:
        """All weights, [rows, cols], as the format defines them bit by bit."""
        return self._matrix.to_dense()

    def take_rows(self, ids: Sequence[int] | NDArray[Any]) -> NDArray[np.float32]:
        """Some rows, decoded: [len(ids), cols]. Raises ValueError for a row that there is not."""
        return self._matrix.rows_of(ids_array(ids))

    def matvec(self, x: ArrayLike, *, float_activations: bool = True) -> NDArray[np.float32]:
        """W x for x [cols]: [rows].

        ``float_activations=False``: with x in int8, blocks of 32, as models run: faster where the codec is a trellis.
        """
        y: NDArray[np.float32] = self._matrix.apply(_dense(x, 1, "x")[None], float_activations)[0]
        return y

    def matmul(self, x: ArrayLike, *, float_activations: bool = True) -> NDArray[np.float32]:
        """W X for X [cols, n]: [rows, n]. No copy is made of an X in Fortran order (X = Y.T), and so is the result."""
        columns = np.asarray(x, dtype=np.float32)
        if columns.ndim != 2:
            raise ValueError(f"X must have 2 dimensions, not the shape {list(columns.shape)}")
        y: NDArray[np.float32] = self._matrix.apply(np.ascontiguousarray(columns.T), float_activations).T
        return y

    def __matmul__(self, x: ArrayLike) -> NDArray[np.float32]:
        array = np.asarray(x)
        return self.matvec(array) if array.ndim == 1 else self.matmul(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a compressed matrix cannot become an array without a copy")
        dense = self.to_dense()
        return dense if dtype is None else dense.astype(dtype, copy=False)


class MdCSR(PackedMatrix):
    """Sparse rows: int8 values, byte-sized column distances, a scale for each row; bridges cross wide gaps."""

    __slots__ = ()
    _codecs = ("mdcsr", "mdcsr_manifold")

    @classmethod
    def from_dense(cls, a: ArrayLike, density: float = 0.1, *, manifold: bool = False) -> Self:
        """Keeps the round(density * size) largest weights by magnitude, of equal ones the first.

        ``manifold``: refines each by a level of the prime table, two bytes more. Raises ValueError for a density
        outside [0, 1] and weights that are not finite.
        """
        return cls(_upg.Matrix.encode(cls._codecs[manifold], _dense(a, 2, "a"), density))

    @classmethod
    def from_scipy(cls, a: Any, *, manifold: bool = False) -> Self:
        """All entries of a scipy.sparse matrix or array that are not 0, each rounded to its row's int8 steps."""
        import scipy.sparse

        csr = scipy.sparse.csr_matrix(a, dtype=np.float32, copy=True)
        csr.sum_duplicates()
        csr.eliminate_zeros()
        rows, cols = csr.shape
        size = rows * cols
        return cls(
            _upg.Matrix.encode_sparse(
                cls._codecs[manifold],
                rows,
                cols,
                csr.indptr.astype(np.int64),
                csr.indices.astype(np.int64),
                csr.data,
                csr.nnz / size if size else 0.0,
            )
        )

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The entries as scipy.sparse.csr_matrix in float32, bridges left out."""
        import scipy.sparse

        rows, cols = self.shape
        pointers = self.row_pointers.astype(np.int64)
        row = np.repeat(np.arange(rows), np.diff(pointers))
        # Columns are sums of deltas from the row's first entry on.
        sums = np.cumsum(self.delta_indices, dtype=np.int64)
        before = np.concatenate([np.zeros(1, np.int64), sums])[pointers[:-1]]
        column = sums - before[row]
        value = self.values.astype(np.float32)
        if self.prime_indices is not None:
            levels = (2 * PRIMES.astype(np.float64) / float(PRIMES[-1]) - 1) / 2
            value = value + levels.astype(np.float32)[self.prime_indices]
        weight = self.scales[row] * value
        kept = self.values != -128
        counts = np.bincount(row[kept], minlength=rows)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return scipy.sparse.csr_matrix((weight[kept], column[kept], indptr), shape=(rows, cols))

    def spmv(self, x: ArrayLike) -> NDArray[np.float32]:
        """W x for x [cols]: [rows]."""
        return self.matvec(x)

    def spmm(self, x: ArrayLike) -> NDArray[np.float32]:
        """W X for X [cols, n]: [rows, n]."""
        return self.matmul(x)

    @property
    def values(self) -> NDArray[np.int8]:
        """[nnz]; -128 marks a bridge."""
        return self.parts["values"]

    @property
    def delta_indices(self) -> NDArray[np.uint8]:
        """[nnz]: distance from the previous entry's column, in a row's first entry from column 0."""
        return self.parts["delta_indices"]

    @property
    def row_pointers(self) -> NDArray[np.uint32]:
        """[rows + 1]: where each row's entries begin."""
        return self.parts["row_pointers"]

    @property
    def scales(self) -> NDArray[np.float32]:
        """[rows]"""
        return self.parts["scales"]

    @property
    def prime_indices(self) -> NDArray[np.uint16] | None:
        """[nnz]: indices into PRIMES; None without the manifold."""
        return self.parts.get("prime_indices")

    @property
    def nnz(self) -> int:
        """Entries, bridges included."""
        return len(self.values)


class Trellis(PackedMatrix):
    """The manifold trellis: 2, 3 or 4 bits a weight, with a step for each block of 32 and a scale for each row."""

    __slots__ = ()
    _codecs = ("trellis2", "trellis3", "trellis4")

    @classmethod
    def from_dense(cls, a: ArrayLike, bits: int = 3) -> Self:
        """Encodes every weight with ``bits`` of 2, 3 or 4, without calibration."""
        if bits not in (2, 3, 4):
            raise ValueError(f"a trellis has 2, 3 or 4 bits a weight, not {bits}")
        return cls(_upg.Matrix.encode(f"trellis{bits}", _dense(a, 2, "a"), 1.0))

    @property
    def bits(self) -> int:
        """Of a code."""
        return int(self.codec[-1])

    @property
    def codes(self) -> NDArray[np.uint32]:
        """[panels, blocks, bits, 16]; docs/format.md draws the bits."""
        return self.parts["codes"]

    @property
    def block_scales(self) -> NDArray[np.uint8]:
        """[panels, blocks, 8]: an index into steps for each row of each block, four bits each."""
        return self.parts["block_scales"]

    @property
    def steps(self) -> NDArray[np.uint8]:
        """[16]"""
        return self.parts["steps"]

    @property
    def codebook(self) -> NDArray[np.uint16]:
        """[2 ** bits]: indices into PRIMES."""
        return self.parts["codebook"]

    @property
    def row_scales(self) -> NDArray[np.uint16]:
        """[rows]: bfloat16, as its bits."""
        return self.parts["row_scales"]

    @property
    def scales(self) -> NDArray[np.float32]:
        """[rows]: the row scales in float32, a copy."""
        return (self.row_scales.astype(np.uint32) << 16).view(np.float32)


class Int8(PackedMatrix):
    """Every weight as int8, with a scale for each row."""

    __slots__ = ()
    _codecs = ("int8",)

    @classmethod
    def from_dense(cls, a: ArrayLike) -> Self:
        """Rounds every weight to its row's int8 steps."""
        return cls(_upg.Matrix.encode("int8", _dense(a, 2, "a"), 1.0))

    @property
    def values(self) -> NDArray[np.int8]:
        """[rows, cols]"""
        return self.parts["values"]

    @property
    def scales(self) -> NDArray[np.float32]:
        """[rows]"""
        return self.parts["scales"]


def wrap(matrix: _upg.Matrix) -> PackedMatrix:
    """As the class for its codec."""
    for cls in (MdCSR, Trellis, Int8):
        if matrix.codec in cls._codecs:
            return cls(matrix)
    return PackedMatrix(matrix)


def open_matrix(path: str | os.PathLike[str], name: str) -> PackedMatrix:
    """The matrix ``name`` of a UPG file, in place: as MdCSR, Trellis, Int8, or PackedMatrix for the dense codecs.

    Raises upg.NotFoundError for a name that the file has not, ValueError for a tensor that is no matrix.
    """
    return wrap(_upg.Matrix.stored(os.fspath(path), name))
