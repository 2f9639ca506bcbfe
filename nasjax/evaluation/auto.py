"""The way of evaluation that is fastest here: all are timed on a few sub-networks, and the quickest is taken."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

import jax
import numpy as np

from nasjax.evaluation.evaluator import EvaluatorConfig, PopulationEvaluator, WayConfig
from nasjax.evaluation.masked import MaskedConfig
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
"""Sub-networks that a way is timed on; as many more as it runs together."""

BATCHES = 2
"""Batches that each is re-calibrated on and scored on."""

MUTATED = 0.1
"""The share of genes in which the later half of these differs from the first: a search asks for such relatives."""


@dataclass(frozen=True)
class AutoConfig(EvaluatorConfig):
    """Whichever way is fastest for this super-network, device and batch: measured when a run starts.

    That takes as long as compiling all of them; `file` (JSON lines) remembers it. `cache_gb` as for `prefix`.
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
        """What one sub-network takes by each way, compiled; infinite for a way that the memory does not hold.

        Raises ValueError where it holds none, and with several processes, which would have to agree.
        """
        if jax.process_count() > 1:
            raise ValueError(f"evaluator=auto is for one process; say evaluator={' or '.join(WAYS)}")
        LOG.info("evaluator=auto: timing %s; that is remembered", ", ".join(WAYS))
        found: dict[str, float] = {}
        refused: list[ValueError] = []
        for name in WAYS:
            try:
                found[name] = self._seconds(self.as_way(name), net, task, clock)
            except ValueError as error:
                refused.append(error)
                found[name] = np.inf
        if len(refused) == len(WAYS):
            raise refused[0]
        return found

    def _seconds(self, way: WayConfig, net: SuperNet, task: ImageClassification, clock: Callable[[], float]) -> float:
        pictures = BATCHES * self.batch
        short = Split(task.validation.images[:pictures], task.validation.labels[:pictures])
        way = replace(way, calibration_images=min(self.calibration_images, pictures), first_pictures=0)
        evaluator = way.bind(net, replace(task, validation=short))
        archs = relatives(net.space, min(max(FEW, evaluator.chunk), self.chunk))

        def run() -> None:
            for start in range(0, len(archs), evaluator.chunk):
                evaluator(archs[start : start + evaluator.chunk])

        run()
        evaluator.forget()
        began = clock()
        run()
        took = clock() - began
        evaluator.release()
        return took / len(archs)


def relatives(space: SearchSpace, number: int) -> Population:
    """Architectures as a search asks for them: half of them random, the others differ from these in few genes."""
    first = space.sample(jax.random.key(0), -(-number // 2))
    others = space.mutate(jax.random.key(1), first, MUTATED)
    return np.concatenate([first, others])[:number].astype(np.int32)


def fastest(seconds: Mapping[str, float]) -> str:
    """The way that takes least, told with its figures."""
    best = min(seconds, key=lambda name: seconds[name])
    words = ", ".join(f"{name} {took:.3g}" if np.isfinite(took) else f"{name} too large" for name, took in seconds.items())
    LOG.info("evaluator=auto: %s is fastest (seconds a sub-network: %s)", best, words)
    return best
