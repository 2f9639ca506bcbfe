"""Population evaluation along a trie: sub-networks that share their first choices share that work.

One program for each kind of stage and choice, compiled when it first occurs. Sub-networks are sorted by their choices and
walked depth-first, so that few activations live; what memory is left keeps activations for later populations. The statistics
of the first stages do not depend on what follows: they are shared by the prefix too. It runs on one device, however many
there are: activations that are shared lie where they were made.
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
from nasjax.evaluation.micro_batched import micro_batched
from nasjax.evaluation.population import StrategyConfig
from nasjax.evaluation.runner import Ended, NeedsNetwork, Resumed
from nasjax.evaluation.switch import Switched
from nasjax.evaluation.totals import Totals, batch_totals, in_float64, merged
from nasjax.supernets import SuperNet
from nasjax.supernets.elastic import RECALIBRATE
from nasjax.supernets.runner import Subnet
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Runner, Task
from nasjax.types import Population

Path = tuple[tuple[int, ...], ...]
"""What each stage of a sub-network is: the options of its genes, or SKIPPED."""

SKIPPED = (-1,)

STATISTICS_SHARE = 0.1
"""The share of the cache that batch-norm statistics may take."""


@dataclass(frozen=True)
class PrefixConfig(StrategyConfig):
    """Shares the work of equal first choices, within a chunk and with earlier ones: for evolved populations.

    At most `cache_gb` of activations, and no more than `memory_gb` leaves, are kept for later populations. One device only.
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
    """Values by key, the least recently used dropped first; together at most `limit` bytes."""

    def __init__(self, limit: int):
        self.limit, self.bytes = limit, 0
        self.values: OrderedDict[Any, tuple[int, Any]] = OrderedDict()

    def get(self, key: Any) -> Any:
        """None where it is not there."""
        if key not in self.values:
            return None
        self.values.move_to_end(key)
        return self.values[key][1]

    def put(self, key: Any, value: Any) -> None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(value))
        if size > self.limit:
            return
        self.bytes += size - self.values.pop(key, (0, None))[0]
        self.values[key] = (size, value)
        while self.bytes > self.limit:
            self.bytes -= self.values.popitem(last=False)[1][0]


class Prefix:
    """A `Strategy`. `cache`: bytes that may be kept from one population to the next.

    Stages that run once for each example are shared; repeated ones run with what a task does with the outputs, in one
    program.
    """

    def __init__(self, net: SuperNet, task: Task, cache: int):
        self._stages = list(net.stages)
        self._choices = net.choices
        self._first_repeated = net.first_repeated
        self._needs_network = net.first_repeated < len(net.stages)
        self._has_norms = net.has_norms
        split = [nnx.split(stage.bare()) for stage in self._stages]
        self._weights = [weights for _, weights in split]
        graphs = [graph for graph, _ in split]
        # Stages that are alike are one program: the first of them stands for all.
        self._kinds = [graphs.index(graph) for graph in graphs]
        self._graphs = graphs
        self._zero = [jax.tree.map(jnp.zeros_like, stage.stored()) for stage in self._stages]
        self._cache = cache
        self._task = task
        graph, self._all_weights = nnx.split(net)
        self._finish = jax.jit(partial(_finished, graph, task), static_argnames="host")
        self._prepare = jax.jit(net.prepare, static_argnums=1)
        self._mean = jax.jit(lambda total, number: jax.tree.map(lambda moment: moment / number, total))
        self.release()

    def release(self) -> None:
        self._programs: dict[tuple[int, tuple[int, ...]], tuple[Any, Any]] = {}
        self.forget()

    def forget(self) -> None:
        self._blocks: Sequence[Block] | None = None
        self._calibrating: dict[Any, Cache] = {}
        self._scoring: dict[Any, Cache] = {}
        self._known = Cache(int(STATISTICS_SHARE * self._cache))

    def statistics(self, arch: Choice, calibration: Calibration, host: HostOptions, together: int) -> tuple[Statistics, ...]:
        path = self._path(arch)
        found = self._statistics([path], calibration, host, len(jax.tree.leaves(calibration)[0]))
        return self._by_stage(path, found)

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
        if blocks is not self._blocks:  # The cached activations are those of other examples.
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
            run = self._program(depth, path[depth])[1]
            return run(self._weights[depth], carry, statistics[path[: depth + 1]])

        parts: dict[Path, list[Totals]] = {path: [] for path in by_path}
        for i, block in list(enumerate(blocks))[part]:
            for j in range(len(block.weights)):
                batch = jax.tree.map(lambda leaf, j=j: leaf[j], block)
                cache = self._scoring.setdefault((host, i, j), self._share(batches))
                for shared, carry in _walk(list(sharing), partial(self._prepare, batch.inputs, host), step, cache, len):
                    for path in sharing[shared]:
                        parts[path].append(self._scored(by_path[path], self._by_stage(path, statistics), carry, batch, host))
        totals = {path: merged(_stacked_totals(list(map(in_float64, found)))) for path, found in parts.items()}
        return _stacked_totals([totals[path] for path in paths])

    def _scored(
        self, arch: Any, statistics: tuple[Statistics, ...], carry: PyTree, batch: Block, host: HostOptions
    ) -> Totals:
        """A batch's totals, from what the last shared stage has left of it."""
        found: Any = None
        if not self._needs_network:  # The program is then the same for every sub-network.
            try:
                found = self._finish(None, None, (), carry, batch, host=host)
            except NeedsNetwork:
                self._needs_network = True
        if self._needs_network:
            found = self._finish(self._all_weights, jnp.asarray(arch, jnp.int32), statistics, carry, batch, host=host)
        if not self._task.on_host:
            return found
        outputs, targets, counted = jax.tree.map(np.asarray, (found, batch.targets, batch.weights))
        return batch_totals(np.asarray(self._task.statistics(outputs, targets), np.float64), counted)

    def _path(self, arch: Any) -> Path:
        choices = self._choices(tuple(map(int, arch)))
        return tuple(
            SKIPPED if stage.skipped(choice) else choice[len(choice) - len(stage.genes) :]  # type: ignore[misc]
            for stage, choice in zip(self._stages, choices, strict=True)
        )

    def _by_stage(self, path: Path, found: Mapping[Path, Statistics]) -> tuple[Statistics, ...]:
        return tuple(
            stage.stored() if choice == SKIPPED else found[path[: i + 1]]
            for i, (stage, choice) in enumerate(zip(self._stages, path, strict=True))
        )

    def _share(self, batches: int) -> "Cache":
        """Every batch has its own part of the cache: else each would drop what the next population asks for first."""
        return Cache(int((1 - STATISTICS_SHARE) * self._cache / batches))

    def _program(self, depth: int, choice: tuple[int, ...]) -> tuple[Any, Any]:
        """A stage's programs for one choice, to re-calibrate and to score."""
        key = self._kinds[depth], choice
        if key not in self._programs:
            graph = self._graphs[key[0]]
            self._programs[key] = jax.jit(partial(_calibrating, graph, choice)), jax.jit(partial(_scoring, graph, choice))
        return self._programs[key]

    def _statistics(
        self, paths: list[Path], calibration: Calibration, host: HostOptions, batches: int
    ) -> dict[Path, Statistics]:
        """The statistics of the last stage of every beginning of every path; none where it is skipped."""
        beginnings = {path[: i + 1] for path in paths for i in range(len(path)) if path[i] != SKIPPED}
        if not self._has_norms:
            return {path: {} for path in beginnings}
        found = {path: self._known.get((host, path)) for path in beginnings}

        def known(path: Path) -> int:
            """How many stages from the first have their statistics."""
            return next((i for i in range(len(path)) if path[i] != SKIPPED and found[path[: i + 1]] is None), len(path))

        missing = [path for path in paths if known(path) < len(path)]
        sums: dict[Path, Statistics] = {}
        added: dict[Path, Statistics] = {}

        def step(path: Path, depth: int, carry: PyTree) -> PyTree:
            run, here = self._program(depth, path[depth])[0], path[: depth + 1]
            carry, added[here] = run(self._weights[depth], carry, sums.get(here, self._zero[depth]))
            return carry

        number = len(jax.tree.leaves(calibration)[0])
        for i in range(number):
            inputs = jax.tree.map(lambda leaf, i=i: leaf[i], calibration)
            kept = self._calibrating.setdefault((host, i), self._share(batches))
            for _ in _walk(missing, partial(self._prepare, inputs, host), step, kept, known):
                pass
            sums.update(added)
        for path, total in sums.items():
            if found[path] is None:  # Some of the batches may have walked past known statistics again.
                found[path] = self._mean(total, np.float32(number))
                self._known.put((host, path), found[path])
        return found


def _stacked_totals(rows: Sequence[Totals]) -> Totals:
    return Totals(*(np.stack(part) for part in zip(*rows, strict=True)))


def _finished(
    graph: nnx.GraphDef,
    task: Task,
    weights: Any,
    arch: Any,
    statistics: tuple[Statistics, ...],
    carry: PyTree,
    batch: Block,
    host: HostOptions,
) -> Any:
    """Totals of a batch (or its outputs, for a task on the host) from the carry behind the stages that run once.

    Without weights the carry is what the last stage has left.
    """
    if weights is None:
        run: Runner = Ended(batch.inputs, carry)
    else:
        run = Resumed(Subnet(Switched(nnx.merge(graph, weights)), arch, statistics, host), batch.inputs, carry)
    outputs = task.outputs(run, batch.inputs)
    return outputs if task.on_host else batch_totals(task.statistics(outputs, batch.targets), batch.weights)


def _walk(
    paths: list[Path],
    prepared: Callable[[], PyTree],
    step: Callable[[Path, int, PyTree], PyTree],
    cache: Cache,
    furthest: Callable[[Path], int],
) -> Iterator[tuple[Path, PyTree]]:
    """Every one of the sorted `paths` with what its last stage hands on; what is kept is used up to stage `furthest`."""
    live: dict[Path, PyTree] = {}
    for i, path in enumerate(paths):
        wanted = _wanted(paths, i)
        live = {begun: carry for begun, carry in live.items() if path[: len(begun)] == begun}
        carry, done = None, 0
        for done in range(len(path), 0, -1):
            carry = live.get(path[:done])
            if carry is None and done <= furthest(path):
                carry = cache.get(path[:done])
            if carry is not None:
                break
        else:
            carry, done = prepared(), 0
        for depth in range(done, len(path)):
            if path[depth] != SKIPPED:
                carry = step(path, depth, carry)
            if depth + 1 < len(path):  # The whole network is not asked for again.
                cache.put(path[: depth + 1], carry)
            if depth + 1 in wanted:
                live[path[: depth + 1]] = carry
        live = {begun: value for begun, value in live.items() if len(begun) in wanted}
        yield path, carry


def _wanted(paths: list[Path], i: int) -> set[int]:
    """How many first stages of path `i` later ones share: its activations there are wanted again."""
    wanted, least = set(), len(paths[i])
    for other in paths[i + 1 :]:
        pairs = zip(paths[i][:least], other, strict=False)
        least = next((depth for depth, (a, b) in enumerate(pairs) if a != b), least)
        if least == 0:
            break
        wanted.add(least)
    return wanted


def _calibrating(
    graph: nnx.GraphDef, choice: tuple[int, ...], weights: Any, carry: PyTree, total: Statistics
) -> tuple[PyTree, Statistics]:
    """What a stage hands on by the batch's own statistics, and these added to `total`."""
    carry, moments = nnx.merge(graph, weights)(carry, choice, RECALIBRATE)
    return carry, jax.tree.map(jnp.add, total, moments)


def _scoring(graph: nnx.GraphDef, choice: tuple[int, ...], weights: Any, carry: PyTree, statistics: Statistics) -> PyTree:
    stage = nnx.merge(graph, weights)
    return micro_batched(lambda part: stage(part, choice, statistics)[0], carry, weights)
