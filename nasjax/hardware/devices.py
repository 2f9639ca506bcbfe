"""Devices that time networks: processors or a GPU of this process, a worker process, or an external program.

A device is called with an extracted network (shapes are enough) and the shapes of its inputs, one network after the other,
while nothing else runs in this process.
"""

import errno
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol, cast

import jax
import numpy as np
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.base import OUT_OF_MEMORY
from nasjax.export import stablehlo
from nasjax.hardware.energy import EnergyCounter, optional_energy_counter
from nasjax.hardware.measurement import Latency, Precision, compiled, filled, measure_latency
from nasjax.hardware.pace import WORK, Pace
from nasjax.host import processor_name
from nasjax.supernets.supernet import SuperNet


class TimingError(ConfigError):
    """A device could not time this network; it may be able to time others."""


class Device(Protocol):
    """Times networks. `context` holds all that a latency depends on besides the network."""

    @property
    def context(self) -> Mapping[str, Any]: ...

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        """Latency of one batch. Raises TimingError for a network that the device cannot time."""

    def close(self) -> None:
        """Releases what the device holds."""


@dataclass(frozen=True, eq=False)
class LocalDevice:
    """A JAX device of this process. `threads`: processors that it uses, 0 for a GPU."""

    device: jax.Device
    name: str
    threads: int
    precision: Precision
    clock: Callable[[], float] = time.perf_counter
    counter: EnergyCounter | None = None
    pace: Pace | None = None

    @property
    def context(self) -> dict[str, Any]:
        return device_context(self.name, self.threads, self.counter) | ({} if self.pace is None else {"pace": WORK})

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        batch = jax.tree.leaves(inputs)[0].shape[0]
        try:
            return measure_latency(
                compiled(network, inputs, self.device),
                self.clock,
                batch=batch,
                threads=self.threads,
                device=self.name,
                precision=self.precision,
                counter=self.counter,
                pace=self.pace,
            )
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and not str(error).startswith(OUT_OF_MEMORY):
                raise
            raise TimingError(f"a network with hardware.batch={batch} does not fit into the memory of {self.name}") from None

    def close(self) -> None:
        """Holds nothing."""


def device_context(name: str, threads: int, counter: EnergyCounter | None) -> dict[str, Any]:
    """What a latency depends on: the device, its threads, the compiler, and whether energy is measured too."""
    energy = {} if counter is None else {"energy": [file.parent.name for file, _ in counter.domains]}
    return {"device": name, "threads": threads, "jaxlib": jax.lib.__version__, **energy}


class WorkerDevice:
    """The processor, in a worker process with `threads` threads, on as many processors where the system lets it choose.

    XLA reads its number of threads when a process starts. The worker starts with the first network.
    """

    def __init__(self, threads: int, precision: Precision):
        self.context = device_context(processor_name(), threads, optional_energy_counter()) | {"pace": WORK}
        self._threads, self._precision = threads, precision
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nasjax.hardware.worker", str(self._threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | worker_environment(self._threads),
            )
        requests, replies = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        try:
            pickle.dump((network, inputs, self._precision), requests)
            requests.flush()
            reply = pickle.load(replies)
        except BaseException as error:
            # Also for Ctrl-C: else the next request would read the reply to this one.
            self._process.kill()
            self._process.wait()
            self._process = None
            if not isinstance(error, OSError | EOFError):
                raise
            raise ConfigError(
                f"the worker process that times networks has ended ({error}); its own message, if any, is above"
            ) from error
        if isinstance(reply, ConfigError):
            raise reply
        if isinstance(reply, str):
            raise RuntimeError(f"the worker process that times networks failed: {reply}")
        return reply

    def close(self) -> None:
        """Ends the worker process."""
        if self._process is not None:
            cast(IO[bytes], self._process.stdin).close()
            self._process.wait()
            self._process = None


def worker_environment(threads: int) -> dict[str, str]:
    """Environment variables that give XLA one CPU device with `threads` threads when it starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    single = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    return {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=1 {single}".strip(),
        "JAX_PLATFORMS": "cpu",
        **dict.fromkeys(("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS"), str(threads)),
    }


class CommandDevice:
    """An external program, called with the file of an exported network (StableHLO); it prints milliseconds last."""

    def __init__(self, command: str, seconds: float):
        try:
            self._words, self._seconds = shlex.split(command), seconds
        except ValueError as error:
            raise ConfigError(f"hardware.command={command}: {str(error)[0].lower()}{str(error)[1:]}") from None
        if not self._words:
            raise ConfigError(
                "hardware=command needs hardware.command=PROGRAM, which is called with the file of a network and prints "
                "milliseconds"
            )
        # The same command can be another program on another machine, or later.
        files = [Path(shutil.which(self._words[0]) or self._words[0]), *map(Path, self._words[1:])]
        contents = [sha256(file.read_bytes()).hexdigest()[:16] for file in files if file.is_file()]
        self.context = {"device": command, "program": contents}

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        batch = jax.tree.leaves(inputs)[0].shape[0]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.stablehlo"
            file.write_bytes(stablehlo(filled(network), batch))
            milliseconds = self._run(file)
        return Latency(milliseconds, np.nan, 1, True, batch, 0, self._words[0], {}, 0, np.nan)

    def _run(self, file: Path) -> float:
        """The last number that the program prints.

        Raises TimingError if the program fails or prints no time, ConfigError if it cannot be run at all.
        """
        setting = f"hardware.command={self._words[0]}"
        try:
            code, output, errors = run_command([*self._words, str(file)], self._seconds)
        except FileNotFoundError:
            raise ConfigError(f"{setting}: there is no such program") from None
        except PermissionError:
            raise ConfigError(f"{setting} cannot be run: make it executable") from None
        except OSError as error:
            reason = "a script must begin with #!/bin/sh or the like" if error.errno == errno.ENOEXEC else error.strerror
            raise ConfigError(f"{setting} cannot be run: {reason}") from None
        except subprocess.TimeoutExpired:
            raise TimingError(f"{setting} took more than {self._seconds:g} s: increase hardware.timeout") from None
        if code:
            lines = (errors or output).strip().splitlines()
            raise TimingError(f"{setting} ended with exit code {code}: {lines[-1] if lines else 'it printed nothing'}")
        last = (output.split() or [""])[-1]
        try:
            milliseconds = float(last)
        except ValueError:
            milliseconds = 0.0
        if not 0 < milliseconds < float("inf"):
            raise TimingError(f"{setting} must print milliseconds last, not {last or 'nothing'}")
        return milliseconds

    def close(self) -> None:
        """Holds nothing."""


def run_command(words: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Runs a program to its end and returns its exit code, output and error output.

    Raises OSError if it cannot be run, and subprocess.TimeoutExpired after `seconds`, when all that it started is killed
    too.
    """
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(words, start_new_session=True, **piped) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException:  # Also for Ctrl-C, which does not reach another session.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output, errors
