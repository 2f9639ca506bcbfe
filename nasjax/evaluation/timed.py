"""Choice of the evaluation strategy by timing each of them once on a few sub-networks."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import jax
import numpy as np

from nasjax.errors import ConfigError
from nasjax.evaluation.base import OUT_OF_MEMORY
from nasjax.evaluation.memory import TooLarge
from nasjax.evaluation.population import PopulationEvaluator, StrategyConfig
from nasjax.evaluation.strategies import STRATEGIES, ChoosingConfig
from nasjax.host import append_line, parse_json, processor_name, processors, read_lines
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tasks import Task
from nasjax.types import Population

LOG = logging.getLogger(__name__)

RECORD_START = '{"key": '
"""The beginning of every line in a file of times."""

NETWORKS = 4
"""The least number of sub-networks that a strategy is timed on, in whole chunks."""

TRIAL_BATCHES = 2
"""The number of batches that each of them is re-calibrated on, and scored on."""

ROUNDS = 3
"""How often each strategy is timed, in turn, since the load of the machine changes."""

MUTATED = 0.1
"""The share of genes that are mutated in half of the sub-networks: a search measures similar ones."""

TimedRun = Callable[[], None]


@dataclass(frozen=True)
class TimedConfig(ChoosingConfig):
    """The fastest strategy for this super-network, device and batch size, which is measured when a run starts.

    Measuring takes as long as compiling all strategies. `file` (JSON lines) stores the times; remove it to measure again.
    `cache_gb` as for `prefix`. Strategies are timed without `first_examples`.
    """

    file: str | None = None

    def bind(
        self, net: SuperNet, task: Task, split: str = "validation", devices: Sequence[jax.Device] | None = None
    ) -> PopulationEvaluator:
        return self.of_strategy(fastest(self.stored_seconds(net, task))).bind(net, task, split, devices)

    def stored_seconds(self, net: SuperNet, task: Task) -> dict[str, float]:
        """Seconds by strategy: from `file` if it has them, else measured and appended to it."""
        if self.file is None:
            return self.seconds(net, task)
        key = self._key(net)
        lines = read_lines(self.file)
        if lines and not lines[0].startswith(RECORD_START):
            raise ConfigError(f"evaluator.file={self.file} is not a file of stored times; name another file")
        stored = _last_seconds(lines, key)
        if stored is not None:
            return stored
        seconds = self.seconds(net, task)
        try:
            append_line(self.file, json.dumps({"key": key, "seconds": seconds}))
        except OSError as error:  # This run needs no file.
            message = "evaluator.file=%s cannot be written, the strategies will be timed again: %s"
            LOG.warning(message, self.file, error.strerror)
        return seconds

    def _key(self, net: SuperNet) -> str:
        """A digest of all that the strategies' speeds depend on: network, inputs, batch, memory, devices, compiler."""
        devices = [device.device_kind for device in jax.devices()]
        facts = [repr(net.space), *(stage.settings() for stage in net.stages), str(net.inputs(1)), self.batch,
                 self.scored_at_a_time, self.precision, self.forms, self.chunk, self.memory, self.cache_gb, devices,
                 processor_name(), processors(), jax.lib.__version__]  # fmt: skip
        return sha256(repr(facts).encode()).hexdigest()[:16]

    def seconds(self, net: SuperNet, task: Task, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
        """Seconds for one sub-network by strategy, compiling excluded: the median of ROUNDS; inf if it does not fit memory.

        Raises ConfigError if none fits, and with several processes, which might choose differently.
        """
        if jax.process_count() > 1:
            raise ConfigError(f"evaluator=timed works in one process only; set evaluator={' or '.join(STRATEGIES)}")
        LOG.info("evaluator=timed: timing %s", ", ".join(STRATEGIES))
        runs: dict[str, tuple[TimedRun, int]] = {}
        refused: list[Exception] = []
        for name in STRATEGIES:
            try:
                runs[name] = self._timed_run(self.of_strategy(name), net, task)
                runs[name][0]()
            except (TooLarge, jax.errors.JaxRuntimeError) as error:
                if not isinstance(error, TooLarge) and OUT_OF_MEMORY not in str(error):
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
        return {name: float(np.median(times[name])) if name in times else np.inf for name in STRATEGIES}

    def _timed_run(self, strategy: StrategyConfig, net: SuperNet, task: Task) -> tuple[TimedRun, int]:
        """A function that scores a few sub-networks with empty caches, and their number."""
        number = TRIAL_BATCHES * self.batch
        short = task.changed(validation=task.validation.take(slice(number)))
        examples = min(self.calibration_examples, number)
        evaluator = replace(strategy, calibration_examples=examples, first_examples=0).bind(net, short)
        # An incomplete chunk would take the time of a full one.
        archs = similar_architectures(net.space, -(-NETWORKS // evaluator.chunk) * evaluator.chunk)

        def run() -> None:
            evaluator.forget()
            for start in range(0, len(archs), evaluator.chunk):
                evaluator(archs[start : start + evaluator.chunk])

        return run, len(archs)


def _last_seconds(lines: Sequence[str], key: str) -> dict[str, float] | None:
    """The last times in the lines for a key; incomplete lines are skipped. None if there are none."""
    found = None
    for line in lines:
        try:
            row = parse_json(line)
            if row["key"] == key and all(row["seconds"][name] > 0 for name in STRATEGIES):
                found = {name: float(row["seconds"][name]) for name in STRATEGIES}
        except (ValueError, LookupError, TypeError):
            continue
    return found if found and np.isfinite(list(found.values())).any() else None


def similar_architectures(space: SearchSpace, number: int) -> Population:
    """Architectures like those of a search: half of them random, the others mutations of these in few genes.

    Duplicates come last, and only if there are too few distinct ones.
    """
    first = space.sample(jax.random.key(0), number)
    others = space.mutate(jax.random.key(1), first, MUTATED)
    pairs = np.stack([first, others], axis=1).reshape(2 * number, -1).astype(np.int32)
    distinct = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
    return np.concatenate([pairs[distinct], pairs])[:number]


def fastest(seconds: Mapping[str, float]) -> str:
    """The strategy with the least seconds; logs all of them."""
    best = min(seconds, key=lambda name: seconds[name])
    times = ", ".join(f"{name} {took:.3g}" if np.isfinite(took) else f"{name} too large" for name, took in seconds.items())
    LOG.info("evaluator=timed: %s is fastest (seconds a sub-network: %s)", best, times)
    return best
