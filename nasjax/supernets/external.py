"""Any Python function as the super-network: it gets architectures as named choices and returns their metrics.

The function runs in worker processes, so that it may use another framework, take too long, or crash.
"""

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from inspect import getsourcefile
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.registry import IN_MEMORY
from nasjax.space import Gene, Option, SearchSpace
from nasjax.supernets.own import import_object
from nasjax.supernets.tabular import BOOKKEEPING
from nasjax.types import Population


@dataclass(frozen=True)
class ExternalConfig:
    """A function of your own that measures architectures.

    Attributes:
      evaluate: the function, as `module:function`; it gets a list of dicts (gene name to option) and returns a list of dicts
        (metric name to number), one an architecture.
      genes: the options of each gene, by name.
      needs: genes that exist only where another gene is large enough, such as `kernel_2: depth>=2`.
      metrics: the names of the metrics that the function returns.
      batch: architectures a call.
      workers: number of processes that call the function at once.
      timeout: seconds after which a call is stopped. It has failed then, as it has when it raises or crashes, and all of its
        architectures count as failed.
    """

    evaluate: str | None = None
    genes: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
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
        taken = sorted(set(self.metrics) & {*self.genes, *BOOKKEEPING})
        if taken:
            raise ConfigError(
                f"supernet.metrics names {taken[0]!r}, which is a gene or a column of evaluations.csv: rename it"
            )
        return ExternalNet(self)


class ExternalNet:
    """A super-network measured by a function; failed architectures get NaN for every metric."""

    origin: Mapping[str, Any] = IN_MEMORY
    costs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: ExternalConfig):
        self._config = config
        self._evaluate = config.evaluate or ""
        function = import_object(self._evaluate, "supernet.evaluate")
        self.space = SearchSpace(tuple(_make_gene(name, options, config.needs) for name, options in config.genes.items()))
        self.metrics = config.metrics
        self.chunk = config.batch * config.workers
        source = getsourcefile(function)
        self.context: Mapping[str, Any] = {
            "evaluate": config.evaluate,
            "source": source and sha256(Path(source).read_bytes()).hexdigest(),
            "genes": {gene.name: list(gene.options) for gene in self.space.genes},
        }
        self._workers: list[_Worker] = []

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The least and greatest value of every metric: unknown (NaN), so a search needs `references` to be given."""
        return {name: (float("nan"), float("nan")) for name in self.metrics}

    def rows(self) -> None:
        """None: every architecture of the space can be measured."""

    def nearest(self, archs: Population) -> Population:
        """Returns the architectures unchanged: each can be measured itself."""
        return archs

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Measures at most `batch` x `workers` architectures: every metric by name, NaN where it is missing or failed."""
        choices = [self.space.decode(arch) for arch in np.asarray(archs)]
        size = self._config.batch
        batches = [choices[start : start + size] for start in range(0, len(choices), size)]
        while len(self._workers) < len(batches):
            self._workers.append(_Worker(self._evaluate))
        for worker, batch in zip(self._workers, batches, strict=False):
            worker.send(batch)
        deadline = time.monotonic() + self._config.timeout
        results = [
            result
            for worker, batch in zip(self._workers, batches, strict=False)
            for result in worker.receive(len(batch), deadline)
        ]
        for result in results:
            missing = [name for name in self.metrics if isinstance(result, Mapping) and result and name not in result]
            if missing:
                print(f"nasjax: {self._evaluate} returned {', '.join(map(str, result))}, not {missing[0]}", file=sys.stderr)
                break
        return {name: np.array([_metric_value(result, name) for result in results]) for name in self.metrics}


class _Worker:
    """A process that evaluates one batch of architectures after another; it is started again after a failure."""

    def __init__(self, evaluate: str):
        self._evaluate = evaluate
        self._process, self._pipe = _start(evaluate)

    def send(self, batch: Sequence[Mapping[str, Option]]) -> None:
        """Begins the evaluation of a batch."""
        if not self._process.is_alive():
            self._process, self._pipe = _start(self._evaluate)
        self._pipe.send([dict(choices) for choices in batch])

    def receive(self, size: int, deadline: float) -> list[Any]:
        """Returns the results of a batch of that size, empty ones where it failed.

        The process is killed if it has not returned them by `deadline` (in seconds of `time.monotonic`).
        """
        if wait([self._pipe], max(0.0, deadline - time.monotonic())):
            try:
                results = self._pipe.recv()
                if isinstance(results, list) and len(results) == size:
                    return results
                reason = " ".join(str(results).split())[:200]
                print(f"nasjax: {self._evaluate} failed ({reason})", file=sys.stderr, flush=True)
                return [{}] * size
            except EOFError:
                print(f"nasjax: the process of {self._evaluate} ended", file=sys.stderr, flush=True)
        else:
            print(f"nasjax: {self._evaluate} took longer than supernet.timeout", file=sys.stderr, flush=True)
        self._process.kill()
        self._process.join()
        return [{}] * size


def _start(evaluate: str) -> tuple[SpawnProcess, Connection]:
    """Starts a worker process; returns it and this side of its pipe."""
    context = multiprocessing.get_context("spawn")
    pipe, their_pipe = context.Pipe()
    process = context.Process(target=_serve, args=(evaluate, their_pipe), daemon=True)
    process.start()
    their_pipe.close()
    return process, pipe


def _serve(evaluate: str, pipe: Connection) -> None:
    """Runs in a worker process: evaluates batches until the parent is gone; an exception is sent as its message."""
    # Ctrl-C reaches every process of a terminal; the parent decides what happens to this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function = import_object(evaluate, "supernet.evaluate")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            batch = pipe.recv()
            try:
                results: Any = list(function(batch))
            except Exception as error:
                results = f"{type(error).__name__}: {error}"
            pipe.send(results)


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


def _metric_value(result: Any, name: str) -> float:
    """Returns a metric of one architecture's result, NaN where it is missing or not a number."""
    try:
        return float(result.get(name, np.nan))
    except (AttributeError, TypeError, ValueError):
        return float("nan")
