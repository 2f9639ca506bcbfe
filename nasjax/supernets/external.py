"""Any Python function as the super-network: it gets architectures as named choices and returns their metrics.

A function that is named runs in worker processes, so that it may use another framework, take too long, or crash.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from nasjax.errors import FAILURE, ConfigError
from nasjax.function_worker import answers, source_digest
from nasjax.graphs import declare
from nasjax.registry import IN_MEMORY, object_name
from nasjax.space import Gene, Option, SearchSpace
from nasjax.types import Population

WATCH = 0.5
"""Seconds between checks whether a worker is alive: its connection may outlive it, in processes that it started."""

MOST_REASONS = 10
"""Different reasons of failures that are printed: one that contains the architecture differs every time."""

Batch = Sequence[Mapping[str, Option]]
"""The architectures of one call, as named choices."""

Answers = list[dict[str, Any]]
"""What `nasjax.function_worker.answers` returns for a batch."""


@dataclass(frozen=True)
class ExternalConfig:
    """A function of your own that measures architectures.

    Attributes:
      evaluate: the function, as `module:function`; it gets a list of dicts (gene name to option) and returns a list of dicts
        (metric name to number), one an architecture. In Python also the function itself, which runs in this process.
      genes: the options of each gene, by name.
      needs: genes that exist only where another gene is large enough, such as `kernel_2: depth>=2`.
      graph: which genes are the edges, links and operations of a cell, such as `edges: edge_TO_FROM`.
      metrics: the names of the metrics that the function returns.
      batch: architectures a call.
      workers: number of processes that call the function at once.
      timeout: seconds after which a call is stopped. It has failed then, as it has when it raises or crashes, and all of its
        architectures count as failed. Importing the function may take as long, too.
    """

    evaluate: Any = None
    genes: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    graph: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    batch: int = 1
    workers: int = 1
    timeout: float = 3600.0

    def create(self, seed: int = 0) -> "ExternalNet":
        """Returns the super-network; `seed` is not used. Raises ConfigError for invalid settings."""
        if self.evaluate is None or not self.genes or not self.metrics:
            raise ConfigError(
                "supernet=external needs supernet.evaluate=module:function, supernet.genes.NAME=[option,…] and "
                "supernet.metrics=[name,…]"
            )
        for name in ("batch", "workers", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"supernet.{name} must be above 0, not {getattr(self, name)}")
        if not callable(self.evaluate) and not isinstance(self.evaluate, str):
            raise ConfigError(f"supernet.evaluate must be module:function or a function, not {self.evaluate!r}")
        if str(self.evaluate).startswith("__main__:"):
            raise ConfigError(f"supernet.evaluate={self.evaluate} is in the script that runs: pass the function itself")
        if callable(self.evaluate) and (self.workers, self.timeout) != (ExternalConfig.workers, ExternalConfig.timeout):
            raise ConfigError(
                "supernet.workers and supernet.timeout are for a function in a module, evaluate=module:function; "
                f"{object_name(self.evaluate)} was given itself, and runs in this process"
            )
        return ExternalNet(self)


class ExternalNet:
    """A super-network measured by a function; failed architectures get NaN for every metric."""

    origin: Mapping[str, Any] = IN_MEMORY
    costs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: ExternalConfig):
        self._config = config
        self.space = SearchSpace(tuple(_make_gene(name, options, config.needs) for name, options in config.genes.items()))
        self.graph = declare(self.space, config.graph)
        self.metrics = config.metrics
        self.chunk = config.batch * config.workers
        self._named = not callable(config.evaluate)
        self._name = config.evaluate if self._named else object_name(config.evaluate)
        # A worker imports the function, not this process: importing it may crash, too.
        self._workers = [_Worker(self._name, self.metrics)] if self._named else []
        self.context: Mapping[str, Any] = {
            "evaluate": self._name,
            "source": self._workers[0].loaded(config.timeout) if self._named else source_digest(config.evaluate),
            "genes": {gene.name: list(gene.options) for gene in self.space.genes},
        }
        self._said: set[str] = set()

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The least and greatest value of every metric: unknown (NaN), so a search needs `references` to be given."""
        return {name: (float("nan"), float("nan")) for name in self.metrics}

    def rows(self) -> None:
        """None: every architecture of the space can be measured."""

    def nearest(self, archs: Population) -> Population:
        """Returns the architectures unchanged: each can be measured itself."""
        return archs

    def __call__(self, archs: Population) -> dict[str, Shaped[np.ndarray, " pop"]]:
        """Measures at most `batch` x `workers` architectures: every metric, NaN where it is missing; as `FAILURE` why.

        The first `MOST_REASONS` reasons are printed, each once; the archive has all of them.
        """
        choices = [self.space.decode(arch) for arch in np.asarray(archs)]
        size = self._config.batch
        batches = [choices[start : start + size] for start in range(0, len(choices), size)]
        if self._named:
            found = self._in_workers(batches)
        else:
            found = [answer for batch in batches for answer in answers(self._config.evaluate, batch, self.metrics)]
        for chosen, answer in zip(choices, found, strict=True):
            reason = answer.get(FAILURE, "")
            if reason and reason not in self._said and len(self._said) < MOST_REASONS:
                self._said.add(reason)
                place = ", ".join(f"{name}={option}" for name, option in chosen.items())
                print(f"nasjax: {self._name} {reason} (first at {place})", file=sys.stderr, flush=True)
        columns = {name: np.array([answer.get(name, np.nan) for answer in found]) for name in self.metrics}
        return columns | {FAILURE: np.array([answer.get(FAILURE, "") for answer in found], str)}

    def _in_workers(self, batches: Sequence[Batch]) -> Answers:
        """The answers to all batches, one a worker; workers that have ended are started again."""
        alive = [worker for worker in self._workers if worker.is_alive()]
        new = [_Worker(self._name, self.metrics) for _ in batches[len(alive) :]]
        self._workers = workers = alive + new
        timeout = self._config.timeout
        try:
            unloaded = {worker: reason for worker in new if (reason := worker.failure_to_load(timeout))}
            calls = list(zip(workers, batches, strict=False))
            for worker, batch in calls:
                worker.send(batch)
            deadline = time.monotonic() + timeout
            found = [
                [{FAILURE: unloaded[worker]} for _ in batch]
                if worker in unloaded
                else worker.receive(batch, deadline, timeout)
                for worker, batch in calls
            ]
        except BaseException:  # Also for Ctrl-C: else the next call would read the answers to this one.
            for worker in workers:
                worker.end()
            raise
        return [answer for part in found for answer in part]


class _Ended(Exception):
    """Why a worker process has ended, or was ended."""


class _Worker:
    """A process that imports a function and evaluates one batch of architectures after another.

    It does not import the script that this process runs, may start processes of its own, and ends when this process does.
    """

    def __init__(self, evaluate: str, metrics: Sequence[str]):
        self._evaluate = evaluate
        self._connection, theirs = Pipe()
        call = f"main({theirs.fileno()}, {evaluate!r}, {tuple(map(str, metrics))!r})"
        path = f"import sys; sys.path[:] = {list(map(str, sys.path))!r}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{path}; from nasjax.function_worker import main; {call}"],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # So that all it started can be ended with it.
        )
        theirs.close()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def loaded(self, timeout: float) -> str | None:
        """Waits until the function is imported; returns the digest of its source. Raises ConfigError where that fails."""
        try:
            reply = self._receive(time.monotonic() + timeout, timeout)
        except _Ended as end:
            raise ConfigError(f"supernet.evaluate={self._evaluate}: the process that imports it {end}") from None
        if isinstance(reply, ConfigError):
            raise reply
        return reply

    def failure_to_load(self, timeout: float) -> str:
        """Waits until the function is imported; returns "", or why it cannot be: a worker before it could."""
        try:
            self.loaded(timeout)
        except ConfigError as error:
            self.end()
            return f"cannot be imported again: {error}"
        return ""

    def send(self, batch: Batch) -> None:
        """Begins the evaluation of a batch."""
        with suppress(OSError):  # It has ended this very moment: `receive` says why.
            self._connection.send([dict(choices) for choices in batch])

    def receive(self, batch: Batch, deadline: float, timeout: float) -> Answers:
        """The answers to the batch. It has failed where the process ended, or has not answered by `deadline`."""
        try:
            return self._receive(deadline, timeout)
        except _Ended as end:
            return [{FAILURE: str(end)} for _ in batch]

    def _receive(self, deadline: float, timeout: float) -> Any:
        """The next reply. Raises `_Ended` where the process has ended, or was ended at `deadline` (of `time.monotonic`)."""
        while not wait([self._connection], min(WATCH, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                self.end()
                raise _Ended(f"took longer than supernet.timeout={timeout:g} s")
            if not self.is_alive() and not self._connection.poll():
                break
        else:
            with suppress(EOFError, OSError):
                return self._connection.recv()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(WATCH)
        self.end()
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise _Ended(f"crashed: its process {how}")

    def end(self) -> None:
        """Ends the process, and all that it started."""
        with suppress(ProcessLookupError, PermissionError):  # The latter on macOS, for a process that has ended.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()


def _make_gene(name: str, options: Any, needs: Mapping[str, str]) -> Gene:
    """Returns a gene, which depends on another if `needs` has a condition for it (`gene>=number`)."""
    if not isinstance(options, list | tuple):
        raise ConfigError(f"supernet.genes.{name} must be a list of options, not {options!r}")
    condition = needs.get(name)
    if condition is None:
        return Gene(name, tuple(options))
    parent, _, value = condition.partition(">=")
    try:
        return Gene(name, tuple(options), (parent.strip(), float(value)))
    except ValueError:
        raise ConfigError(f"supernet.needs.{name}={condition!r} is not of the form gene>=number") from None
