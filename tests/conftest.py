"""Two CPU devices, shapes and types checked at run time, compiled programs kept between runs; a tiny network and task."""

import gc
import os
from itertools import count
from pathlib import Path

# Two processes share two cores: threads of theirs that wait for each other keep them busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2".strip()

from jaxtyping import install_import_hook

# Not the algorithms' states: JAX builds such dataclasses anew with batched or placeholder leaves, which no shape fits.
CHECKED = [
    "nasjax.pareto",
    "nasjax.sorting",
    "nasjax.algorithms.draws",
    "nasjax.space",
    "nasjax.supernets",
    "nasjax.algorithms.evolve",
]
install_import_hook(CHECKED, "typechecking.typechecked")

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import config as jaxtyping_config  # noqa: E402

from nasjax.host import cache_folder  # noqa: E402


def pytest_configure(config):
    # Tracing makes many small objects beside a large heap: walking it at Python's own thresholds takes a sixth of the time.
    gc.set_threshold(200_000, 20, 100)
    if config.option.markexpr == "not slow":
        # Quick tests compile much and compute little: a third of their time is LLVM's optimisation.
        os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    # Outside the clone, so that a fresh one finds what another compiled; jaxlib's programs are its version's alone.
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "tests" / jax.lib.__version__))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


WHOLE_COMMANDS = (
    "test_blocks", "test_cli", "test_constraints", "test_exit_codes", "test_export", "test_extract_command",
    "test_fine_tune", "test_latency_profile", "test_memory", "test_own", "test_pages", "test_proxies", "test_python",
    "test_reduction", "test_resolution", "test_search", "test_warm",
)  # fmt: skip
"""Files whose tests run whole searches and commands. Quick runs leave shapes unchecked there, a quarter of their time: other
files check the same functions, and `scripts/test --slow` checks them everywhere."""


def pytest_runtest_setup(item):
    quick = item.config.option.markexpr == "not slow" and "NASJAX_CHECK_SHAPES" not in os.environ
    unchecked = quick and item.path.stem in WHOLE_COMMANDS
    jaxtyping_config.update("jaxtyping_disable", unchecked)


_finished = count(1)


def pytest_runtest_teardown():
    """Every compiled program holds memory mappings; Linux allows a process 65,530, and a whole run would make more."""
    maps = Path("/proc/self/maps")
    if next(_finished) % 25 == 0 and maps.is_file() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def strict():
    """No implicit promotion of dtypes or ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def sweeps(monkeypatch):
    """`nasjax search -m` in this process: Hydra sets up logging at every job, which would close pytest's handlers."""
    monkeypatch.setattr("logging.config.DictConfigurator.configure", lambda config: None)


@pytest.fixture(scope="session")
def tiny_net():
    """A MobileNetV3 super-network of seven stages, every weight and statistic random."""
    from tiny import tiny_network

    return tiny_network()


@pytest.fixture(scope="session")
def tiny_task():
    """Images of `tiny_net`'s shape in three classes that are easy to tell apart."""
    from tiny import easy_task

    return easy_task()


@pytest.fixture(scope="session")
def tiny_run(tiny_net, tiny_task, tmp_path_factory):
    """The folder of a finished search of `tiny_net`; not to be changed."""
    import nasjax

    folder = tmp_path_factory.mktemp("tiny") / "run"
    nasjax.search(tiny_net, tiny_task, objectives=["accuracy_top1", "macs"], tactic="random", evaluations=24, run=folder)
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The folder of a finished search of the digits' super-network by command; not to be changed."""
    from nasjax.cli import main

    folder = tmp_path_factory.mktemp("digits") / "run"
    concurrent = ["tactic=concurrent", "predictor=ridge", "tactic.population=10", "tactic.generations=20"]
    assert main(["search", "evaluations=20", *concurrent, "evaluator.calibration_examples=100", f"run={folder}"]) == 0
    return folder
