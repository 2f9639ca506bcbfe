"""What the commands share while they run: profiling with progress, several processes, JAX's settings."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax

from nasjax.errors import ConfigError
from nasjax.generators import result_of
from nasjax.hardware.profile import Profile
from nasjax.hardware.profiling import profiling
from nasjax.host import cache_folder
from nasjax.jax_defaults import restore_defaults
from nasjax.program_cache import cache_programs
from nasjax.progress import ProgressBar
from nasjax.supernets import SuperNet
from nasjax.verbosity import is_quiet


def profile_with_progress(net: SuperNet, hardware: Mapping[str, Any], label: str = "") -> Profile:
    """Profiles a super-network on hardware under a progress bar, and prints what the profile says of itself.

    Timings are kept in `hardware.file`, by default in the cache folder of this machine.
    """
    if hardware["name"] != "csv" and hardware["file"] is None:
        hardware = {**hardware, "file": str(cache_folder() / "latency.jsonl")}
    kind = f"latency {hardware['name']} {net.origin['name']}"
    with ProgressBar("timed", "ms", label=label, kind=kind) as bar:
        profile = result_of(profiling(net, hardware), lambda now: bar.update(now.done, now.planned, now.milliseconds))
    print(f"{label}: {profile.summary()}" if label else profile.summary(), flush=True)
    return profile


def join_processes(distributed: list[str] | None) -> None:
    """Joins this process to the others of a search: `[HOST:PORT,NUMBER,INDEX]`, or `[auto]` on a known cluster.

    Raises ConfigError for a list of another form, and where the processes cannot be reached.
    """
    if distributed is None:
        return
    address, *numbers = distributed or [""]
    explicit = len(numbers) == 2 and all(number.isdigit() for number in numbers)
    if not explicit and distributed != ["auto"]:
        raise ConfigError(
            f"distributed=[{','.join(distributed)}] must be [auto] or [HOST:PORT,NUMBER,INDEX]: where the first process "
            "listens, how many processes there are, and which of them this one is, counted from 0"
        )
    arguments: dict[str, Any] = {}
    if explicit:
        arguments = {"coordinator_address": address, "num_processes": int(numbers[0]), "process_id": int(numbers[1])}
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"distributed=[{','.join(distributed)}]: {str(error).splitlines()[0]}") from error


PLATFORMS = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_DEFAULT_DEVICE")
"""Environment variables that say which devices JAX uses."""


def prepare_jax() -> None:
    """Sets JAX's defaults, the persistent compilation cache (where JAX_COMPILATION_CACHE_DIR says, if set) and the log on
    stderr.

    Raises ConfigError where an environment variable keeps JAX from starting.
    """
    logging.basicConfig(format="%(message)s")
    if not is_quiet():
        logging.getLogger("nasjax").setLevel(logging.INFO)
    changed = ", ".join(name.upper() for name in restore_defaults())
    if changed:
        print(f"Left aside, as results depend on JAX's defaults: {changed}", file=sys.stderr)
    _check_flags(os.environ.get("XLA_FLAGS", ""))
    try:
        jax.device_put(0.0)  # The first use starts JAX's platforms.
    except (RuntimeError, AssertionError) as error:  # JAX asserts that a CUDA device is there.
        platforms = [name for name in PLATFORMS if os.environ.get(name)]
        named = platforms or sorted(name for name in os.environ if name.startswith("JAX_"))
        if not named:
            raise
        said = " ".join(f"{name}={os.environ[name]}" for name in named)
        reason = (str(error) or "JAX has no such device here").splitlines()[0]
        raise ConfigError(f"{said} in the environment: {reason}; {'say cpu, or ' * bool(platforms)}unset it") from None
    cache_programs()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@cache
def _check_flags(flags: str) -> None:
    """Raises ConfigError where XLA refuses XLA_FLAGS, which ends a process: tried in another one."""
    if flags:
        trial = "from jaxlib.xla_client import CompileOptions; CompileOptions()"
        done = subprocess.run([sys.executable, "-c", trial], capture_output=True)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").splitlines()
            reason = next((line.partition("] ")[2] for line in lines if "] " in line), "XLA ends the process")
            raise ConfigError(f"XLA_FLAGS={flags} in the environment: {reason}")
