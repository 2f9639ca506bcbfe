"""The way of evaluation that is fastest here: all are timed on a few sub-networks, and the quickest is taken."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

import jax
import numpy as np

from nasjax.errors import ConfigError
from nasjax.evaluation.base import FULL, EvaluatorConfig, PopulationEvaluator, WayConfig
from nasjax.evaluation.masked import MaskedConfig
from nasjax.evaluation.memory import TooLarge
from nasjax.evaluation.prefix import PrefixConfig
from nasjax.evaluation.switch import SwitchConfig
from nasjax.space import SearchSpace
from nasjax.supernets.stage import SuperNet
from nasjax.tasks import ImageClassification
from nasjax.tasks.classification import Split
from nasjax.types import Population

LOG = logging.getLogger(__name__)

WAYS: Mapping[str, type[WayConfig]] = MappingProxyType(
    {"masked": MaskedConfig, "switch": SwitchConfig, "prefix": PrefixConfig}
)
"""Every way of evaluation by name."""

FEW = 4
"""Sub-networks that a way is timed on; whole chunks of them."""

BATCHES = 2
"""Batches that each is re-calibrated on and scored on."""

ROUNDS = 3
"""How often each way is timed, in turn: what else a machine does changes meanwhile."""

MUTATED = 0.1
"""The share of genes in which the later half of these differs from the first: a search asks for such relatives."""

Run = Callable[[], None]


@dataclass(frozen=True)
class AutoConfig(EvaluatorConfig):
    """Whichever way is fastest for this super-network, device and batch: measured when a run starts.

    That takes as long as compiling all of them; `file` (JSON lines) remembers it, and is to be removed to time them again.
    `cache_gb` as for `prefix`. With `first_pictures` the ways are timed without.
    """

    cache_gb: float = 1.0
    file: str | None = None

    def as_way(self, name: str) -> WayConfig:
        """These settings for one way."""
        way = WAYS[name]
        own = {field.name for field in fields(way)}
        return way(**{field.name: getattr(self, field.name) for field in fields(self) if field.name in own})

    def bind(
        self,
        net: SuperNet,
        task: ImageClassification,
        split: str = "validation",
        devices: Sequence[jax.Device] | None = None,
    ) -> PopulationEvaluator:
        return self.as_way(fastest(self.seconds(net, task))).bind(net, task, split, devices)

    def seconds(
        self, net: SuperNet, task: ImageClassification, clock: Callable[[], float] = time.perf_counter
    ) -> dict[str, float]:
        """What one sub-network takes by each way, compiled: the median of ROUNDS; infinite where memory does not hold it.

        Raises ConfigError where it holds none, and with several processes, which would have to agree.
        """
        if jax.process_count() > 1:
            raise ConfigError(f"evaluator=auto is for one process; say evaluator={' or '.join(WAYS)}")
        LOG.info("evaluator=auto: timing %s", ", ".join(WAYS))
        runs: dict[str, tuple[Run, int]] = {}
        refused: list[Exception] = []
        for name in WAYS:
            try:
                runs[name] = self._run(self.as_way(name), net, task)
                runs[name][0]()
            except (TooLarge, jax.errors.JaxRuntimeError) as error:
                if not isinstance(error, TooLarge) and FULL not in str(error):
                    raise
                runs.pop(name, None)
                refused.append(error)
        if not runs:
            raise refused[0]
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, (run, number) in runs.items():
                began = clock()
                run()
                times[name].append((clock() - began) / number)
        return {name: float(np.median(times[name])) if name in times else np.inf for name in WAYS}

    def _run(self, way: WayConfig, net: SuperNet, task: ImageClassification) -> tuple[Run, int]:
        """Scores a few sub-networks, nothing kept from before; and how many."""
        pictures = BATCHES * self.batch
        short = Split(task.validation.images[:pictures], task.validation.labels[:pictures])
        way = replace(way, calibration_images=min(self.calibration_images, pictures), first_pictures=0)
        evaluator = way.bind(net, replace(task, validation=short))
        # A chunk that is not full would be charged as if it were.
        archs = relatives(net.space, -(-FEW // evaluator.chunk) * evaluator.chunk)

        def run() -> None:
            evaluator.forget()
            for start in range(0, len(archs), evaluator.chunk):
                evaluator(archs[start : start + evaluator.chunk])

        return run, len(archs)


def relatives(space: SearchSpace, number: int) -> Population:
    """Architectures as a search asks for them: half of them random, the others differ from these in few genes.

    Each once, as far as the space and a few draws go.
    """
    first = space.sample(jax.random.key(0), number)
    others = space.mutate(jax.random.key(1), first, MUTATED)
    pairs = np.stack([first, others], axis=1).reshape(2 * number, -1).astype(np.int32)
    once = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
    return np.concatenate([pairs[once], pairs])[:number]


def fastest(seconds: Mapping[str, float]) -> str:
    """The way that takes least, told with its figures."""
    best = min(seconds, key=lambda name: seconds[name])
    words = ", ".join(f"{name} {took:.3g}" if np.isfinite(took) else f"{name} too large" for name, took in seconds.items())
    LOG.info("evaluator=auto: %s is fastest (seconds a sub-network: %s)", best, words)
    return best
