"""Stable sorting by packed numbers against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nasjax.sorting import argsort, falses_first, lexsort, narrow

ROWS = 17
FLOATS = hnp.arrays(np.float32, ROWS, elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 2e-38, 3e38, np.inf, -np.inf, np.nan]))
INTEGERS = hnp.arrays(np.int32, ROWS, elements=st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)]))
MASKS = hnp.arrays(bool, ROWS)


@settings(max_examples=50, deadline=None)
@given(FLOATS, INTEGERS, MASKS)
def test_orders_are_numpys(floats, integers, mask):
    keys = tuple(map(jnp.asarray, (floats, integers, mask)))
    np.testing.assert_array_equal(argsort(keys[0]), np.argsort(floats, kind="stable"))
    np.testing.assert_array_equal(argsort(keys[1]), np.argsort(integers, kind="stable"))
    np.testing.assert_array_equal(argsort(keys[2]), np.argsort(mask, kind="stable"))
    np.testing.assert_array_equal(falses_first(keys[2]), np.argsort(mask, kind="stable"))
    few = narrow(jnp.asarray(integers).clip(0, 5), 5)
    host = floats, integers, mask, np.clip(integers, 0, 5)
    # Two in one sort; two sorts; three of which the first two share one; all, of which the last three share one.
    for chosen in ((0, 2), (0, 1), (0, 3, 1), (1, 0, 3, 2), (2, 3, 1, 0)):
        found = lexsort(tuple((*keys, few)[i] for i in chosen))
        np.testing.assert_array_equal(found, np.lexsort([host[i] for i in chosen]))


@pytest.mark.parametrize("most", [127, 128, 32767, 32768])
def test_the_narrowest_type_holds_the_most(most):
    key = jnp.array([most, 0, most - 1])
    assert narrow(key, most).tolist() == key.tolist()
    assert narrow(key, most).dtype.itemsize == 1 + (most > 127) + 2 * (most > 32767)


def test_nan_comes_last_whatever_its_sign():
    negative = np.array([0xFFC00000], np.uint32).view(np.float32)[0]
    values = np.array([negative, np.inf, -np.inf, np.nan], np.float32)
    assert argsort(jnp.asarray(values)).tolist() == [2, 1, 0, 3]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.int32])
def test_types_of_16_and_32_bits(dtype):
    values = np.random.default_rng(0).integers(-9, 9, 40).astype(dtype)
    np.testing.assert_array_equal(argsort(jnp.asarray(values)), np.argsort(values, kind="stable"))


def test_keys_of_64_bits_are_sorted_whole():
    values = np.array([1 + 2e-16, 1.0, 1 + 4e-16])
    with jax.enable_x64(True):
        assert argsort(jnp.asarray(values)).tolist() == [1, 0, 2]


def test_a_batch_inside_jit_is_sorted_row_by_row():
    batch = np.random.default_rng(1).normal(size=(5, 30)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(jax.vmap(argsort))(batch), np.argsort(batch, kind="stable"))


def test_no_rows():
    assert argsort(jnp.zeros(0)).shape == falses_first(jnp.zeros(0, bool)).shape == (0,)
