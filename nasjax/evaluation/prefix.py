"""Population evaluation along a trie: sub-networks that share their first choices share that work.

One program for each kind of stage and choice, compiled when it first occurs. Sub-networks are sorted by their choices and
walked depth-first, so that few activations live; what memory is left keeps activations for later populations. The statistics
of the first stages do not depend on what follows: they are shared by the prefix too. It runs on one device, however many
there are: activations that are shared lie where they were made.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.base import ALL, Found, WayConfig
from nasjax.evaluation.blocks import Block
from nasjax.evaluation.host_genes import resized
from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.micro_batched import few_at_a_time
from nasjax.evaluation.programs import added
from nasjax.supernets.cpu.micro_batches import recalibrating
from nasjax.supernets.stage import Choice, Statistics, SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Population

Path = tuple[tuple[int, ...], ...]
"""What each stage of a sub-network is: the options of its genes, or SKIPPED."""

SKIPPED = (-1,)

STATISTICS = 0.1
"""The share of the cache that batch-norm statistics may take."""


@dataclass(frozen=True)
class PrefixConfig(WayConfig):
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

    def way(self, net: SuperNet, task: ImageClassification, spare: float, mesh: Mesh | None = None) -> "Prefix":
        return Prefix(net, task, int(min(self.cache_gb * 1e9, spare)))


class Kept:
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
    """A `Way`. `cache`: bytes that may be kept from one population to the next."""

    def __init__(self, net: SuperNet, task: ImageClassification, cache: int):
        self._stages = list(net.stages)
        self._choices = net.choices
        split = [nnx.split(stage.bare()) for stage in self._stages]
        self._weights = [weights for _, weights in split]
        graphs = [graph for graph, _ in split]
        # Stages that are alike are one program: the first of them stands for all.
        self._kinds = [graphs.index(graph) for graph in graphs]
        self._graphs = graphs
        self._nothing = [jax.tree.map(jnp.zeros_like, stage.stored()) for stage in self._stages]
        self._cache = cache
        self._add = jax.jit(partial(added, task))
        self._resize = jax.jit(resized, static_argnums=1)
        self._mean = jax.jit(lambda total, number: jax.tree.map(lambda moment: moment / number, total))
        self.release()

    def release(self) -> None:
        self._programs: dict[tuple[int, tuple[int, ...]], tuple[Any, Any]] = {}
        self.forget()

    def forget(self) -> None:
        self._blocks: Sequence[Block] | None = None
        self._calibrating: dict[Any, Kept] = {}
        self._scoring: dict[Any, Kept] = {}
        self._known = Kept(int(STATISTICS * self._cache))

    def statistics(
        self, arch: Choice, calibration: Float[Array, "batches batch h w c"], size: int | None, together: int
    ) -> tuple[Statistics, ...]:
        path = self._path(arch)
        found = self._statistics([path], calibration, size, len(calibration))
        return tuple(
            stage.stored() if choice == SKIPPED else found[path[: i + 1]]
            for i, (stage, choice) in enumerate(zip(self._stages, path, strict=True))
        )

    def totals(
        self,
        archs: Population,
        calibration: Float[Array, "batches batch h w c"],
        blocks: Sequence[Block],
        size: int | None,
        together: int,
        part: slice = ALL,
        kept: Found | None = None,
    ) -> tuple[Float[np.ndarray, "pop metrics"], Float[np.ndarray, "pop metrics"]]:
        if blocks is not self._blocks:  # Other pictures: what is kept is not theirs.
            self.forget()
            self._blocks = blocks
        paths = [self._path(arch) for arch in archs]
        distinct = sorted(set(paths))
        batches = len(calibration) + sum(len(images) for images, _, _ in blocks)
        statistics = self._statistics(distinct, calibration, size, batches)

        def step(path: Path, depth: int, carry: PyTree) -> PyTree:
            run = self._program(depth, path[depth])[1]
            return run(self._weights[depth], carry, statistics[path[: depth + 1]])

        totals = {path: np.zeros((2, 0)) for path in distinct}
        for i, block in list(enumerate(blocks))[part]:
            for j, (images, labels, counted) in enumerate(zip(*block, strict=True)):
                cache = self._scoring.setdefault((size, i, j), self._share(batches))
                found = {}
                for path, logits in _walk(distinct, partial(self._resize, images, size), step, cache, len):
                    found[path] = self._add(logits, labels, counted)
                for path, sums in found.items():
                    new = np.array(sums, np.float64)
                    totals[path] = totals[path] + new if totals[path].size else new
        sums, squares = np.stack([totals[path] for path in paths], axis=1)
        return sums, squares

    def _path(self, arch: Any) -> Path:
        choices = self._choices(tuple(map(int, arch)))
        return tuple(
            SKIPPED if stage.skipped(choice) else choice[len(choice) - len(stage.genes) :]  # type: ignore[misc]
            for stage, choice in zip(self._stages, choices, strict=True)
        )

    def _share(self, batches: int) -> Kept:
        """Every batch has its own part of the cache: else each would drop what the next population asks for first."""
        return Kept(int((1 - STATISTICS) * self._cache / batches))

    def _program(self, depth: int, choice: tuple[int, ...]) -> tuple[Any, Any]:
        """A stage's programs for one choice, to re-calibrate and to score."""
        key = self._kinds[depth], choice
        if key not in self._programs:
            graph = self._graphs[key[0]]
            self._programs[key] = jax.jit(partial(_calibrating, graph, choice)), jax.jit(partial(_scoring, graph, choice))
        return self._programs[key]

    def _statistics(
        self, paths: list[Path], calibration: Float[Array, "batches batch h w c"], size: int | None, batches: int
    ) -> dict[Path, Statistics]:
        """The statistics of the last stage of every beginning of every path; none where it is skipped."""
        beginnings = {path[: i + 1] for path in paths for i in range(len(path)) if path[i] != SKIPPED}
        found = {path: self._known.get((size, path)) for path in beginnings}

        def known(path: Path) -> int:
            """How many stages from the first have their statistics."""
            return next((i for i in range(len(path)) if path[i] != SKIPPED and found[path[: i + 1]] is None), len(path))

        missing = [path for path in paths if known(path) < len(path)]
        sums: dict[Path, Statistics] = {}
        added_now: dict[Path, Statistics] = {}

        def step(path: Path, depth: int, carry: PyTree) -> PyTree:
            run, here = self._program(depth, path[depth])[0], path[: depth + 1]
            carry, added_now[here] = run(self._weights[depth], carry, sums.get(here, self._nothing[depth]))
            return carry

        for i, images in enumerate(calibration):
            kept = self._calibrating.setdefault((size, i), self._share(batches))
            for _ in _walk(missing, partial(self._resize, images, size), step, kept, known):
                pass
            sums.update(added_now)
        for path, total in sums.items():
            if found[path] is None:  # What was known may have been passed by again, by some of the batches.
                found[path] = self._mean(total, np.float32(len(calibration)))
                self._known.put((size, path), found[path])
        return found


def _walk(
    paths: list[Path],
    pictures: Callable[[], PyTree],
    step: Callable[[Path, int, PyTree], PyTree],
    kept: Kept,
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
                carry = kept.get(path[:done])
            if carry is not None:
                break
        else:
            carry, done = pictures(), 0
        for depth in range(done, len(path)):
            if path[depth] != SKIPPED:
                carry = step(path, depth, carry)
            if depth + 1 < len(path):  # The whole network is not asked for again.
                kept.put(path[: depth + 1], carry)
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
    with recalibrating():
        carry, moments = nnx.merge(graph, weights)(carry, choice, None)
    return carry, jax.tree.map(jnp.add, total, moments)


def _scoring(graph: nnx.GraphDef, choice: tuple[int, ...], weights: Any, carry: PyTree, statistics: Statistics) -> PyTree:
    stage = nnx.merge(graph, weights)
    return few_at_a_time(lambda few: stage(few, choice, statistics)[0], carry, weights)
