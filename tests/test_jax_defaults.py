"""Results do not depend on JAX's settings in a shell or a notebook; a setting that keeps JAX from starting is named."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tables import GENES, write_table
from threadpoolctl import threadpool_info, threadpool_limits
from tiny import easy_task, images, tiny_network

import nasjax
from nasjax.cli import main
from nasjax.jax_defaults import DEFAULTS, changed_settings, restore_defaults, with_jax_defaults
from nasjax.training.loop import train
from nasjax.training.sandwich import SandwichConfig

CHANGED = {
    "jax_enable_x64": (True, jax.enable_x64),
    "jax_debug_nans": (True, jax.debug_nans),
    "jax_debug_infs": (True, jax.debug_infs),
    "jax_disable_jit": (True, jax.disable_jit),
    "jax_numpy_rank_promotion": ("raise", jax.numpy_rank_promotion),
    "jax_numpy_dtype_promotion": ("strict", jax.numpy_dtype_promotion),
    "jax_default_matmul_precision": ("bfloat16", jax.default_matmul_precision),
    "jax_default_prng_impl": ("rbg", jax.default_prng_impl),
    "jax_threefry_partitionable": (False, jax.threefry_partitionable),
    "jax_legacy_prng_key": ("error", jax.legacy_prng_key),
    "jax_debug_key_reuse": (True, jax.debug_key_reuse),
    "jax_transfer_guard_host_to_device": ("disallow", jax.transfer_guard_host_to_device),
    "jax_transfer_guard_device_to_host": ("disallow", jax.transfer_guard_device_to_host),
    "jax_transfer_guard_device_to_device": ("disallow", jax.transfer_guard_device_to_device),
}


@contextmanager
def everything_changed():
    """A thread in which no setting has JAX's default."""
    with ExitStack() as stack:
        for value, context in CHANGED.values():
            stack.enter_context(context(value))
        assert sorted(changed_settings()) == sorted(CHANGED) == sorted(DEFAULTS)
        yield
        assert sorted(changed_settings()) == sorted(CHANGED)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "table.csv")


def searched(table):
    """Archs and hypervolume of a search by each kind of tactic."""
    net = nasjax.supernets.create("tabular", table=table, genes=list(GENES))
    found = []
    for tactic, predictor in (("ehvi", "gaussian_process"), ({"name": "concurrent", "population": 6}, "ridge")):
        goals = {"objectives": ["max:acc", "min:cost"], "tactic": tactic, "predictor": predictor}
        front = nasjax.search(net, **goals, evaluations=14)
        found.append((front.archs.tolist(), front.hypervolume))
    return found


def test_a_search_finds_the_same_whatever_jaxs_settings_are(table):
    wanted = searched(table)
    with everything_changed():
        assert searched(table) == wanted


def test_a_generator_leaves_its_caller_the_callers_settings():
    @with_jax_defaults
    def steps():
        try:
            assert not changed_settings()
            given = yield 1
            assert given is None and not changed_settings()
            return 2
        finally:
            ended.append(True)

    ended = []
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        for whole in (True, False):
            running = steps()
            assert next(running) == 1
            assert changed_settings() == ["jax_enable_x64", "jax_numpy_rank_promotion"]
            if whole:
                with pytest.raises(StopIteration) as end:
                    next(running)
                assert end.value.value == 2
            running.close()
    assert ended == [True, True]


def trained_and_extracted(net, key, inputs):
    """Weights after training, metrics after a search, outputs of an extracted network."""
    task = easy_task((48, 24, 12))
    goals = {"objectives": ["accuracy_top1", "macs"], "tactic": "random", "evaluator": "prefix"}
    front = nasjax.search(net, task, **goals, evaluations=3)
    outputs = np.asarray(front[0].extract()(inputs))
    trained = train(SandwichConfig(epochs=1, batch=24), net, task, key, lambda *_: None)
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(trained))]
    assert {leaf.dtype for leaf in (outputs, *weights)} == {np.dtype(np.float32)}
    return [*front.metrics.values(), outputs, *weights]


@pytest.mark.slow
def test_networks_are_measured_trained_and_extracted_alike_whatever_jaxs_settings_are():
    given = tiny_network(), jax.random.key(0), images(2)
    wanted = trained_and_extracted(*given)
    with everything_changed():
        found = trained_and_extracted(*given)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_network_is_called_with_numbers_of_64_bits_as_without():
    given = images(2, size=8, channels=1)
    created = nasjax.supernets.create("digits")
    arch = tuple(map(int, created.space.largest()))
    wanted = np.asarray(created(given, arch))
    with jax.enable_x64(True):
        again = nasjax.supernets.create("digits")
        for inputs in (given, given.astype(np.float64), jnp.asarray(given, jnp.float64)):
            outputs = again(inputs, arch)
            assert outputs.dtype == jnp.float32
            np.testing.assert_array_equal(outputs, wanted)


def test_a_network_is_called_under_every_setting():
    net, given = nasjax.supernets.create("digits"), images(2, size=8, channels=1)
    arch = tuple(map(int, net.space.smallest()))
    wanted = np.asarray(net(given, arch))
    with everything_changed():
        outputs = net(given, arch)
        assert outputs.dtype == jnp.float32
        np.testing.assert_array_equal(outputs, wanted)


def test_a_command_sets_jaxs_defaults_and_says_which_settings_it_left_aside(table, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["search", "supernet=tabular", f"supernet.table={table}", f"supernet.genes=[{','.join(GENES)}]"]
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_debug_nans", True)
    jax.config.update("jax_random_seed_offset", 5)
    try:
        assert main([*words, "objectives=[max:acc,min:cost]", "evaluations=2", "tactic=random", "run=run"]) == 0
        assert restore_defaults() == []
    finally:
        restore_defaults()
    first = capsys.readouterr().err.splitlines()[0]
    named = "JAX_ENABLE_X64, JAX_DEBUG_NANS, JAX_RANDOM_SEED_OFFSET"
    assert first == f"Left aside, as results depend on JAX's defaults: {named}"


@pytest.mark.parametrize(
    ("variable", "part"),
    [
        ("JAX_PLATFORMS=nonsense", "JAX_PLATFORMS=nonsense in the environment: Unable to initialize backend 'nonsense'"),
        ("JAX_NUM_CPU_DEVICES=0", "JAX_NUM_CPU_DEVICES=0 in the environment: Unable to initialize backend 'cpu'"),
        ("JAX_ENABLE_X64=maybe", "JAX does not start with this environment (JAX_… variables): invalid truth value 'maybe'"),
        ("XLA_FLAGS=--xla_nonsense=1", "XLA_FLAGS=--xla_nonsense=1 in the environment: Unknown flag in XLA_FLAGS"),
    ],
)
def test_a_variable_that_keeps_jax_from_starting_is_named(table, tmp_path, monkeypatch, variable, part):
    monkeypatch.setenv(*variable.split("=", 1))
    words = ["supernet=tabular", f"supernet.table={table}", f"supernet.genes=[{','.join(GENES)}]", "run=run"]
    command = [sys.executable, "-m", "nasjax", "search", *words, "objectives=[max:acc,min:cost]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nasjax: {part}")
    assert list(tmp_path.iterdir()) == []


def blas_threads():
    """The number of threads of every BLAS that is loaded; XLA's decompositions on a CPU are done by one."""
    jnp.linalg.cholesky(jnp.eye(2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_within_and_the_callers_number_outside():
    @with_jax_defaults
    def steps():
        yield blas_threads()
        return blas_threads()

    with threadpool_limits(2, user_api="blas"):
        assert with_jax_defaults(blas_threads)() == {1}
        assert blas_threads() == {2}
        running = steps()
        assert next(running) == {1} and blas_threads() == {2}
        with pytest.raises(StopIteration) as end:
            next(running)
        assert end.value.value == {1} and blas_threads() == {2}
