"""Population evaluation along a prefix tree: sub-networks with the same first choices compute their first stages once.

Each kind of stage has one program for each choice, compiled at its first use. Sub-networks are sorted by their choices and
visited depth-first, so that few activations are in memory at a time; the rest of memory caches activations for later
populations. Batch-norm statistics of the first stages do not depend on later stages, and are shared too. Only one device is
used, since shared activations stay where they were computed.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.base import ALL, Calibration, KnownStatistics
from nasjax.evaluation.blocks import Block
from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.population import StrategyConfig
from nasjax.evaluation.runner import FinishedRun, NeedsNetwork, ResumedRun
from nasjax.evaluation.scoring import finished_totals, place, program_arguments, score
from nasjax.evaluation.stage_programs import SKIPPED, Path, StagePrograms, calibrate_stage, run_stage
from nasjax.evaluation.switch import Switched, padded
from nasjax.evaluation.totals import Totals, in_float64, merged, stacked
from nasjax.supernets import SuperNet
from nasjax.supernets.runner import Subnet
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Runner, Task
from nasjax.types import Population

STATISTICS_SHARE = 0.1
"""The share of the cache that batch-norm statistics may take."""


@dataclass(frozen=True)
class PrefixConfig(StrategyConfig):
    """Shares the work of equal first choices, within a chunk and with earlier chunks: for evolved populations.

    At most `cache_gb` of activations, and no more than `memory_gb` allows, are cached. Uses one device only.
    """

    spreads: ClassVar[bool] = False

    chunk: int = 32
    cache_gb: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.cache_gb < 0:
            raise ConfigError(f"evaluator.cache_gb must be at least 0, not {self.cache_gb}")

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net), together=False)

    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> "Prefix":
        return Prefix(net, task, int(min(self.cache_gb * 1e9, spare)))


class Cache:
    """A least-recently-used cache of at most `limit` bytes."""

    def __init__(self, limit: int):
        self.limit, self.bytes = limit, 0
        self.values: OrderedDict[Any, tuple[int, Any]] = OrderedDict()

    def get(self, key: Any) -> Any:
        """The value of a key; None if it is not cached."""
        if key not in self.values:
            return None
        self.values.move_to_end(key)
        return self.values[key][1]

    def put(self, key: Any, value: Any) -> None:
        """Caches a value, unless it is larger than the cache."""
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(value))
        if size > self.limit:
            return
        self.bytes += size - self.values.pop(key, (0, None))[0]
        self.values[key] = (size, value)
        while self.bytes > self.limit:
            self.bytes -= self.values.popitem(last=False)[1][0]


class Prefix:
    """The `Strategy` of shared prefixes. `cache`: bytes of activations and statistics kept between populations.

    Stages that run once for each example are shared; repeated ones run in one program, with the task's scoring.
    """

    def __init__(self, net: SuperNet, task: Task, cache: int):
        self._stages = list(net.stages)
        self._choices = net.choices
        self._first_repeated = net.first_repeated
        self._needs_network = net.first_repeated < len(net.stages)
        self._has_norms = net.has_norms
        self._programs = StagePrograms(self._stages)
        self._cache = cache
        self._task = task
        graph, self._all_weights = nnx.split(net)
        self._score = jax.jit(partial(_score_carry, graph, task), static_argnames="host")
        self._full_carry = partial(_full_carry, net)
        self._full_carries: dict[Any, PyTree] = {}
        self._prepare = jax.jit(net.prepare, static_argnums=1)
        self._mean = jax.jit(lambda total, number: jax.tree.map(lambda moment: moment / number, total))
        self.release()

    def release(self) -> None:
        self._programs.release()
        self.forget()

    def forget(self) -> None:
        self._blocks: Sequence[Block] | None = None
        self._calibration_caches: dict[Any, Cache] = {}
        self._scoring_caches: dict[Any, Cache] = {}
        self._statistics_cache = Cache(int(STATISTICS_SHARE * self._cache))

    def statistics(self, arch: Choice, calibration: Calibration, host: HostOptions, together: int) -> tuple[Statistics, ...]:
        path = self._path(arch)
        statistics = self._statistics([path], calibration, host, len(jax.tree.leaves(calibration)[0]))
        return self._by_stage(path, statistics)

    def totals(
        self,
        archs: Population,
        calibration: Calibration,
        blocks: Sequence[Block],
        host: HostOptions,
        together: int,
        part: slice = ALL,
        known: KnownStatistics | None = None,
    ) -> Totals:
        if blocks is not self._blocks:  # Cached activations belong to other examples.
            self.forget()
            self._blocks = blocks
        paths = [self._path(arch) for arch in archs]
        by_path = dict(sorted(zip(paths, archs, strict=True), key=lambda pair: pair[0]))
        batches = sum(len(block.weights) for block in blocks)
        if calibration is not None:
            batches += len(jax.tree.leaves(calibration)[0])
        statistics = self._statistics(list(by_path), calibration, host, batches)
        first = self._first_repeated
        sharing: dict[Path, list[Path]] = {}
        for path in by_path:
            sharing.setdefault(path[:first], []).append(path)

        def step(path: Path, depth: int, carry: PyTree) -> PyTree:
            return self._programs.run(run_stage, depth, path[depth], carry, statistics[path[: depth + 1]])

        parts: dict[Path, list[Totals]] = {path: [] for path in by_path}
        compiled: set[str] = set()
        for i, block in list(enumerate(blocks))[part]:
            for j, weights in enumerate(np.asarray(block.weights)):
                if not weights.any():  # The batch only fills the block up.
                    continue
                # On the device once: each sub-network reads it.
                batch = place(None, jax.tree.map(lambda leaf, j=j: leaf[j], block), self._task.on_host)
                shapes = self._prepared_shapes(batch.inputs, host)
                if str(shapes) not in compiled:  # Batches of a bucket are alike.
                    compiled.add(str(shapes))
                    self._programs.compile_together(run_stage, sharing, shapes)
                cache = self._scoring_caches.setdefault((host, i, j), self._batch_cache(batches))
                for shared, carry in _walk(list(sharing), partial(self._prepare, batch.inputs, host), step, cache, len):
                    for path in sharing[shared]:
                        parts[path].append(
                            self._batch_totals(by_path[path], self._by_stage(path, statistics), carry, batch, host)
                        )
        totals = {path: merged(stacked(list(map(in_float64, found)))) for path, found in parts.items()}
        return stacked([totals[path] for path in paths])

    def _batch_totals(
        self, arch: Any, statistics: tuple[Statistics, ...], carry: PyTree, batch: Block, host: HostOptions
    ) -> Totals:
        """A batch's totals, from the carry of the last shared stage."""
        arguments = program_arguments(batch, self._task.on_host)
        scored: Any = None
        if not self._needs_network:  # One program serves all sub-networks.
            try:
                scored = self._score(None, None, (), carry, arguments, host=host)
            except NeedsNetwork:
                self._needs_network = True
        if self._needs_network:
            full = self._at_full_width(carry, batch.inputs, host)
            scored = self._score(self._all_weights, jnp.asarray(arch, jnp.int32), statistics, full, arguments, host=host)
        return finished_totals(self._task, scored, batch) if self._task.on_host else scored

    def _at_full_width(self, carry: PyTree, inputs: PyTree, host: HostOptions) -> PyTree:
        """The carry, padded outside of the program of all repeated stages: it is compiled for one shape."""
        key = host, *(leaf.shape for leaf in jax.tree.leaves(inputs))
        if key not in self._full_carries:
            self._full_carries[key] = self._full_carry(inputs, host)
        return jax.tree.map(padded, carry, self._full_carries[key])

    def _path(self, arch: Choice | np.ndarray) -> Path:
        choices = self._choices(tuple(map(int, arch)))
        return tuple(
            SKIPPED if stage.skipped(choice) else choice[len(choice) - len(stage.genes) :]  # type: ignore[misc]
            for stage, choice in zip(self._stages, choices, strict=True)
        )

    def _by_stage(self, path: Path, statistics: Mapping[Path, Statistics]) -> tuple[Statistics, ...]:
        """The statistics of every stage of a path, from those by prefix."""
        return tuple(
            stage.stored() if choice == SKIPPED else statistics[path[: i + 1]]
            for i, (stage, choice) in enumerate(zip(self._stages, path, strict=True))
        )

    def _batch_cache(self, batches: int) -> "Cache":
        """A cache for one batch: in a common one, each batch would evict what the next population needs first."""
        return Cache(int((1 - STATISTICS_SHARE) * self._cache / batches))

    def _prepared_shapes(self, inputs: PyTree, host: HostOptions) -> PyTree[jax.ShapeDtypeStruct]:
        return jax.eval_shape(partial(self._prepare, inputs, host))

    def _statistics(
        self, paths: list[Path], calibration: Calibration, host: HostOptions, batches: int
    ) -> dict[Path, Statistics]:
        """The statistics of the last stage of every prefix of every path, unless that stage is skipped."""
        prefixes = {path[: i + 1] for path in paths for i in range(len(path)) if path[i] != SKIPPED}
        if not self._has_norms:
            return {path: {} for path in prefixes}
        found = {path: self._statistics_cache.get((host, path)) for path in prefixes}

        def known(path: Path) -> int:
            """The number of first stages whose statistics are known."""
            return next((i for i in range(len(path)) if path[i] != SKIPPED and found[path[: i + 1]] is None), len(path))

        missing = [path for path in paths if known(path) < len(path)]
        sums: dict[Path, Statistics] = {}
        added: dict[Path, Statistics] = {}

        def step(path: Path, depth: int, carry: PyTree) -> PyTree:
            here = path[: depth + 1]
            total = sums.get(here, self._programs.zero[depth])
            carry, added[here] = self._programs.run(calibrate_stage, depth, path[depth], carry, total)
            return carry

        number = len(jax.tree.leaves(calibration)[0])
        for i in range(number):
            inputs = jax.tree.map(lambda leaf, i=i: leaf[i], calibration)
            if i == 0:
                self._programs.compile_together(calibrate_stage, missing, self._prepared_shapes(inputs, host))
            cache = self._calibration_caches.setdefault((host, i), self._batch_cache(batches))
            for _ in _walk(missing, partial(self._prepare, inputs, host), step, cache, known):
                pass
            sums.update(added)
        for path, total in sums.items():
            if found[path] is None:  # Some batches may have recomputed stages with known statistics.
                found[path] = self._mean(total, np.float32(number))
                self._statistics_cache.put((host, path), found[path])
        return found


def _score_carry(
    graph: nnx.GraphDef,
    task: Task,
    weights: Any,
    arch: Any,
    statistics: tuple[Statistics, ...],
    carry: PyTree,
    batch: Block,
    host: HostOptions,
) -> Any:
    """Totals of a batch (or its outputs, for a task on the host) from the carry of the last stage that is not repeated.

    That carry has its full width; without weights, it is the carry of the last stage.
    """
    if weights is None:
        run: Runner = FinishedRun(batch.inputs, carry)
    else:
        net = nnx.merge(graph, weights)
        run = ResumedRun(Subnet(Switched(net), arch, statistics, host), batch.inputs, carry)
    return score(task, run, batch)


def _full_carry(net: SuperNet, inputs: PyTree, host: HostOptions) -> PyTree[jax.ShapeDtypeStruct]:
    """The largest shapes of the carry that repeated stages read: `Switched` expects these of every sub-network."""
    largest = tuple(map(int, net.space.largest()))
    return jax.eval_shape(
        lambda inputs: net.forward(net.prepare(inputs, host), largest, None, stop=net.first_repeated)[0], inputs
    )


def _walk(
    paths: list[Path],
    prepared: Callable[[], PyTree],
    step: Callable[[Path, int, PyTree], PyTree],
    cache: Cache,
    cached_stages: Callable[[Path], int],
) -> Iterator[tuple[Path, PyTree]]:
    """Yields each of the sorted `paths` with the carry of its last stage.

    At most the first `cached_stages(path)` stages use cached carries; later ones must run, for their statistics.
    """
    live: dict[Path, PyTree] = {}
    for i, path in enumerate(paths):
        depths = _shared_depths(paths, i)
        live = {prefix: carry for prefix, carry in live.items() if path[: len(prefix)] == prefix}
        carry, done = None, 0
        for done in range(len(path), 0, -1):
            carry = live.get(path[:done])
            if carry is None and done <= cached_stages(path):
                carry = cache.get(path[:done])
            if carry is not None:
                break
        else:
            carry, done = prepared(), 0
        for depth in range(done, len(path)):
            if path[depth] != SKIPPED:
                carry = step(path, depth, carry)
            if depth + 1 < len(path):  # A whole network is not measured again.
                cache.put(path[: depth + 1], carry)
            if depth + 1 in depths:
                live[path[: depth + 1]] = carry
        live = {prefix: value for prefix, value in live.items() if len(prefix) in depths}
        yield path, carry


def _shared_depths(paths: list[Path], i: int) -> set[int]:
    """The numbers of first stages that path `i` shares with later paths, which need its carries there."""
    depths, least = set(), len(paths[i])
    for other in paths[i + 1 :]:
        pairs = zip(paths[i][:least], other, strict=False)
        least = next((depth for depth, (a, b) in enumerate(pairs) if a != b), least)
        if least == 0:
            break
        depths.add(least)
    return depths
