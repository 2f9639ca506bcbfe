"""Any Python function as the super-network: it gets named architectures and returns their metrics.

The function runs in processes of its own, so that it may use another framework, take too long, or crash.
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
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.space import Gene, Option, SearchSpace
from nasjax.supernets.own import found
from nasjax.types import Population

RESERVED = ("index", "step", "status", "source", "seconds")
"""Columns that a run's table has beside genes and metrics."""


@dataclass(frozen=True)
class ExternalConfig:
    """A function of your own: `evaluate=module:function` gets a list of named architectures and returns a list of dicts.

    `genes` are the options of each gene, `needs` says which exist only where another is large enough (`kernel_2:
    depth>=2`), `metrics` what the function returns. `batch` architectures a call, in `workers` processes; a call that takes
    longer than `timeout` seconds, raises or crashes has failed, and its architectures with it.
    """

    evaluate: str | None = None
    genes: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    batch: int = 1
    workers: int = 1
    timeout: float = 3600.0

    def create(self, seed: int = 0) -> "ExternalNet":
        """Raises ConfigError, in one line, for what is missing or does not fit."""
        if self.evaluate is None or not self.genes or not self.metrics:
            raise ConfigError(
                "supernet=external needs supernet.evaluate=module:function, supernet.genes.NAME=[option,…] and "
                "supernet.metrics=[name,…]"
            )
        for name in ("batch", "workers", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"supernet.{name} must be above 0, not {getattr(self, name)}")
        taken = sorted(set(self.metrics) & {*self.genes, *RESERVED})
        if taken:
            raise ConfigError(
                f"supernet.metrics names {taken[0]!r}, which is a gene or a column of evaluations.csv: rename it"
            )
        return ExternalNet(self)


class ExternalNet:
    """Measures by the function; what fails is NaN."""

    origin: Mapping[str, Any] = MappingProxyType({"name": "in memory"})
    costs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: ExternalConfig):
        assert config.evaluate is not None
        self._config = config
        function = found(config.evaluate, "supernet.evaluate")
        self.space = SearchSpace(tuple(_gene(name, options, config.needs) for name, options in config.genes.items()))
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
        """Nothing is known of the metrics: the references of a search must be given."""
        return {name: (float("nan"), float("nan")) for name in self.metrics}

    def rows(self) -> None:
        """Every architecture can be measured."""

    def nearest(self, archs: Population) -> Population:
        """The architectures themselves."""
        return archs

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Every metric of at most `batch` x `workers` architectures."""
        named = [self.space.decode(arch) for arch in np.asarray(archs)]
        size = self._config.batch
        parts = [named[start : start + size] for start in range(0, len(named), size)]
        while len(self._workers) < len(parts):
            self._workers.append(_Worker(self._config.evaluate))
        for worker, part in zip(self._workers, parts, strict=False):
            worker.send(part)
        deadline = time.monotonic() + self._config.timeout
        answers = [
            answer
            for worker, part in zip(self._workers, parts, strict=False)
            for answer in worker.receive(len(part), deadline)
        ]
        for answer in answers:
            missing = [name for name in self.metrics if isinstance(answer, Mapping) and answer and name not in answer]
            if missing:
                print(
                    f"nasjax: {self._config.evaluate} gave {', '.join(map(str, answer))}, not {missing[0]}", file=sys.stderr
                )
                break
        return {name: np.array([_number(answer, name) for answer in answers]) for name in self.metrics}


class _Worker:
    """A process that answers one list of architectures after another; it is started anew after a failure."""

    def __init__(self, evaluate: str | None):
        self._evaluate = evaluate
        self._process: Any = None
        self._pipe: Connection | None = None

    def send(self, part: Sequence[Mapping[str, Option]]) -> None:
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_answer, args=(self._evaluate, theirs), daemon=True)
            self._process.start()
            theirs.close()
        assert self._pipe is not None
        self._pipe.send([dict(choices) for choices in part])

    def receive(self, number: int, deadline: float) -> list[Any]:
        """The answers; empty ones where the process failed or did not answer in time."""
        assert self._pipe is not None
        if wait([self._pipe], max(0.0, deadline - time.monotonic())):
            try:
                answers = self._pipe.recv()
                if isinstance(answers, list) and len(answers) == number:
                    return answers
                words = " ".join(str(answers).split())[:200]
                print(f"nasjax: {self._evaluate} failed ({words})", file=sys.stderr, flush=True)
                return [{}] * number
            except EOFError:
                print(f"nasjax: the process of {self._evaluate} ended", file=sys.stderr, flush=True)
        else:
            print(f"nasjax: {self._evaluate} took longer than supernet.timeout", file=sys.stderr, flush=True)
        self._process.kill()
        self._process.join()
        self._process = None
        return [{}] * number


def _answer(evaluate: str, pipe: Connection) -> None:
    """The process: answers lists until its parent is gone; an exception is sent as words."""
    # Ctrl-C reaches every process of a terminal; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function = found(evaluate, "supernet.evaluate")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            named = pipe.recv()
            try:
                answers: Any = list(function(named))
            except Exception as error:
                answers = f"{type(error).__name__}: {error}"
            pipe.send(answers)


def _gene(name: str, options: Any, needs: Mapping[str, str]) -> Gene:
    if not isinstance(options, list | tuple):
        raise ConfigError(f"supernet.genes.{name} must be a list of options, not {options!r}")
    words = needs.get(name)
    if words is None:
        return Gene(name, tuple(options))
    parent, _, value = words.partition(">=")
    try:
        return Gene(name, tuple(options), (parent.strip(), float(value)))
    except ValueError:
        raise ConfigError(f"supernet.needs.{name}={words!r} is not of the form gene>=number") from None


def _number(answer: Any, name: str) -> float:
    try:
        return float(answer.get(name, np.nan))
    except (AttributeError, TypeError, ValueError):
        return float("nan")
