"""Compressed matrices against NumPy and SciPy, with random shapes and densities."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import scipy.sparse
import upg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

shapes = st.tuples(st.integers(1, 70), st.integers(1, 900))
seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(deadline=None)
@given(shape=shapes, density=st.floats(0, 1), seed=seeds, manifold=st.booleans())
def test_mdcsr_keeps_the_largest_weights_to_its_steps(
    shape: tuple[int, int], density: float, seed: int, manifold: bool
) -> None:
    a = normal(seed, shape)
    matrix = upg.MdCSR.from_dense(a, density, manifold=manifold)
    sparse = matrix.to_scipy()
    dense = matrix.to_dense()
    assert np.array_equal(sparse.toarray(), dense)
    kept = round(density * a.size)
    assert abs(sparse.nnz - kept) <= 1
    assert sparse.has_sorted_indices
    # Whatever was kept is at least as large as whatever was not.
    zeroed = sparse.copy()
    zeroed.data[:] = 1
    places = zeroed.toarray() != 0
    if places.any() and not places.all():
        assert np.abs(a[places]).min() >= np.abs(a[~places]).max()
    step = matrix.scales[:, None] * (0.5 if not manifold else 2e-3)
    assert (np.abs(dense - a)[places] <= (np.broadcast_to(step, shape)[places] * 1.01 + 1e-7)).all()


@settings(deadline=None)
@given(shape=shapes, density=st.floats(0, 0.3), seed=seeds)
def test_mdcsr_multiplies_as_scipy_does(shape: tuple[int, int], density: float, seed: int) -> None:
    a = scipy.sparse.random(*shape, density=density, random_state=np.random.default_rng(seed), dtype=np.float32)
    matrix = upg.MdCSR.from_scipy(a)
    sparse = matrix.to_scipy()
    x = normal(seed, (shape[1], 3))
    bound = 1e-5 * (np.abs(sparse).dot(np.abs(x)) + 1e-6)
    assert (np.abs(matrix.spmv(x[:, 0]) - sparse @ x[:, 0]) <= bound[:, 0]).all()
    for columns in (x, np.asfortranarray(x)):
        assert (np.abs(matrix.spmm(columns) - sparse @ columns) <= bound).all()
    assert np.array_equal(matrix @ x[:, 0], matrix.spmv(x[:, 0]))
    # The same places, and a second time the same values to within rounding.
    again = upg.MdCSR.from_scipy(sparse)
    assert np.allclose(again.to_dense(), matrix.to_dense(), rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(shape=shapes, bits=st.sampled_from([2, 3, 4]), seed=seeds)
def test_a_trellis_is_near_what_it_stands_for(shape: tuple[int, int], bits: int, seed: int) -> None:
    a = normal(seed, shape)
    matrix = upg.Trellis.from_dense(a, bits)
    dense = matrix.to_dense()
    assert np.linalg.norm(dense - a) <= {2: 0.55, 3: 0.35, 4: 0.25}[bits] * np.linalg.norm(a)
    x = normal(seed + 1, (shape[1],))
    bound = 1e-5 * (np.abs(dense) @ np.abs(x)) + 1e-6
    assert (np.abs(matrix.matvec(x) - dense @ x) <= bound).all()
    # int8 activations: half a step of each block's largest value at most.
    rough = np.abs(dense).sum(1) * np.abs(x).max() / 100 + 1e-6
    assert (np.abs(matrix.matvec(x, float_activations=False) - dense @ x) <= rough).all()
    assert matrix.codes.shape == (-(-shape[0] // 16), -(-shape[1] // 32), bits, 16)
    ids = np.arange(shape[0])[::-2]
    assert np.array_equal(matrix.take_rows(ids), dense[ids])
    copy = upg.Trellis.from_parts(matrix.codec, matrix.shape, {k: v.copy() for k, v in matrix.parts.items()})
    assert np.array_equal(copy.to_dense(), dense)


def test_int8_rounds_to_its_rows_steps() -> None:
    a = normal(3, (20, 50))
    matrix = upg.Int8.from_dense(a)
    assert np.array_equal(matrix.to_dense(), matrix.scales[:, None] * matrix.values.astype(np.float32))
    assert (np.abs(matrix.to_dense() - a) <= 0.51 * matrix.scales[:, None]).all()


def test_stored_arrays_are_views_that_keep_their_matrix() -> None:
    matrix = upg.MdCSR.from_dense(normal(1, (40, 300)), 0.2, manifold=True)
    values, primes = matrix.values, matrix.prime_indices
    assert primes is not None
    assert np.shares_memory(values, matrix.values)
    assert not values.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    copies = {name: part.copy() for name, part in matrix.parts.items()}
    view = upg.MdCSR.from_parts("mdcsr_manifold", matrix.shape, copies)
    assert np.shares_memory(view.values, copies["values"])
    expected = view.to_dense()
    before = values.copy()
    del matrix, copies
    gc.collect()
    assert np.array_equal(values, before)
    assert np.array_equal(view.to_dense(), expected)


def test_arrays_that_break_the_format_are_refused() -> None:
    matrix = upg.MdCSR.from_dense(normal(2, (8, 40)), 0.5)
    parts = {name: part.copy() for name, part in matrix.parts.items()}
    parts["row_pointers"][-1] += 1
    with pytest.raises(upg.InvalidFileError, match="mine"):
        upg.MdCSR.from_parts("mdcsr", (8, 40), parts, name="mine")
    with pytest.raises(upg.InvalidFileError, match=r"is I8 \[\d+\]|row_pointers"):
        upg.MdCSR.from_parts("mdcsr", (9, 40), matrix.parts)
    with pytest.raises(upg.InvalidFileError, match="missing"):
        upg.MdCSR.from_parts("mdcsr", (8, 40), {"values": matrix.values})
    with pytest.raises(upg.UnsupportedError, match="is not known"):
        upg.PackedMatrix.from_parts("none", (8, 40), matrix.parts)
    with pytest.raises(ValueError, match="stored as mdcsr, which is not Trellis"):
        upg.Trellis.from_parts("mdcsr", (8, 40), matrix.parts)
    with pytest.raises(ValueError, match="no codec has arrays of float64"):
        upg.MdCSR.from_parts("mdcsr", (8, 40), {**matrix.parts, "scales": matrix.scales.astype(np.float64)})


def test_bad_operands_are_refused() -> None:
    matrix = upg.MdCSR.from_dense(normal(2, (8, 40)), 0.5)
    with pytest.raises(ValueError, match="cannot be multiplied with a vector of 41"):
        matrix.spmv(np.zeros(41))
    with pytest.raises(ValueError, match="must have 2 dimensions"):
        matrix.spmm(np.zeros(40))
    with pytest.raises(ValueError, match="row 8 is outside"):
        matrix.take_rows([8])
    with pytest.raises(ValueError, match=r"density is 1\.5"):
        upg.MdCSR.from_dense(np.ones((2, 2)), 1.5)
    with pytest.raises(ValueError, match="row 1, column 0 is not finite"):
        upg.MdCSR.from_dense(np.array([[1, 2], [np.nan, 3]]))
    with pytest.raises(ValueError, match="2, 3 or 4 bits"):
        upg.Trellis.from_dense(np.ones((2, 2)), 5)
    with pytest.raises(ValueError, match="a must have 2 dimensions"):
        upg.Trellis.from_dense(np.ones(3))


def test_empty_matrices_are_matrices() -> None:
    for shape in ((0, 5), (5, 0)):
        matrix = upg.MdCSR.from_dense(np.zeros(shape), 0.5)
        assert matrix.to_dense().shape == shape
        assert matrix.spmv(np.zeros(shape[1])).tolist() == [0.0] * shape[0]
        assert matrix.bits_per_weight == 0
    assert upg.MdCSR.from_scipy(scipy.sparse.csr_matrix((3, 4))).to_scipy().nnz == 0


def test_a_wide_sparse_matrix_needs_no_dense_copy() -> None:
    a = scipy.sparse.random(50, 300_000, density=1e-4, random_state=np.random.default_rng(1), dtype=np.float64)
    matrix = upg.MdCSR.from_scipy(a.tocoo())
    assert (np.asarray(matrix.values) == -128).any()
    kept = matrix.to_scipy()
    assert kept.nnz == a.nnz
    assert abs(kept - a).max() <= 0.51 * matrix.scales.max()


def test_a_matrix_becomes_an_array_where_one_is_asked_for() -> None:
    matrix = upg.Trellis.from_dense(normal(5, (16, 32)))
    assert np.array_equal(np.asarray(matrix), matrix.to_dense())
    assert np.asarray(matrix, dtype=np.float64).dtype == np.float64
    assert "trellis3" in repr(matrix)


def test_products_work_in_a_forked_child() -> None:
    matrix = upg.MdCSR.from_dense(normal(6, (64, 64)), 0.5)
    x = np.ones(64, np.float32)
    expected = matrix.spmv(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(matrix.spmv(x), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_primes_are_the_first_ten_thousand() -> None:
    assert upg.PRIMES.shape == (10000,)
    sieve = np.ones(104730, bool)
    sieve[:2] = False
    for i in range(2, 324):
        sieve[i * i :: i] = False
    assert np.array_equal(upg.PRIMES, np.flatnonzero(sieve))
