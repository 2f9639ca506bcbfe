"""Random numbers by the row against those that JAX draws for the whole array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.algorithms.draws import uniform_rows, whole_numbers


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_rows_are_those_of_the_whole(impl, low):
    key, rows = jax.random.key(5, impl=impl), jnp.array([7, 0, 7, 99])
    whole = np.asarray(jax.random.uniform(key, (100, 45), minval=low))
    np.testing.assert_array_equal(uniform_rows(key, rows, (100, 45), low), whole[np.asarray(rows)])


def test_rows_of_a_batch_of_keys():
    keys, rows = jax.random.split(jax.random.key(1), 3), jnp.arange(4)
    drawn = jax.jit(jax.vmap(lambda key: uniform_rows(key, rows, (4, 3))))(keys)
    np.testing.assert_array_equal(drawn, jax.vmap(lambda key: jax.random.uniform(key, (4, 3)))(keys))


def test_rows_of_the_older_layout_of_threefry():
    with jax.threefry_partitionable(False):
        whole = np.asarray(jax.random.uniform(jax.random.key(2), (6, 5)))
        np.testing.assert_array_equal(uniform_rows(jax.random.key(2), jnp.array([5, 1]), (6, 5)), whole[[5, 1]])


@pytest.mark.parametrize("most", [1, 2, 7, 1000, 2**16, 2**16 + 1, 2**31 - 1])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_whole_numbers_are_those_of_randint(impl, most):
    key, shape = jax.random.key(3, impl=impl), (2, 2, 50)
    np.testing.assert_array_equal(whole_numbers(key, shape, most), jax.random.randint(key, shape, 0, most))
