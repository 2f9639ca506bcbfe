"""Compiled programs of single stages: one for each kind of stage, choice and shape of inputs, compiled several at a time."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from nasjax.evaluation.micro_batched import micro_batched
from nasjax.host import processors
from nasjax.supernets.elastic import RECALIBRATE
from nasjax.supernets.stage import Stage, Statistics

Path = tuple[tuple[int, ...], ...]
"""For each stage of a sub-network the option indices of its genes, or SKIPPED; also of its first stages only."""

SKIPPED = (-1,)

WAITED = "/nasjax/compiling_together"
"""The event of waiting for programs that other threads compile, in seconds."""

StageFunction = Callable[..., Any]
"""(graph, choice, weights, carry, statistics) -> results: `calibrate_stage` or `run_stage`."""


class _Program(NamedTuple):
    compiled: Any
    results: PyTree[jax.ShapeDtypeStruct]


class StagePrograms:
    """The programs of a super-network's stages. Stages of equal structure share them."""

    def __init__(self, stages: Sequence[Stage]):
        split = [nnx.split(stage.bare()) for stage in stages]
        self._graphs = [graph for graph, _ in split]
        self._weights = [weights for _, weights in split]
        # The index of the first stage of equal structure.
        self._kinds = [self._graphs.index(graph) for graph in self._graphs]
        self._programs: dict[Any, _Program] = {}
        self.zero = [jax.tree.map(jnp.zeros_like, stage.stored()) for stage in stages]

    def run(
        self, function: StageFunction, depth: int, choice: tuple[int, ...], carry: PyTree, statistics: Statistics
    ) -> Any:
        """What `function` returns for the stage at `depth`."""
        key = self._key(function, depth, choice, carry)
        if key not in self._programs:
            lowered = self._lowered(function, depth, choice, carry)
            self._programs[key] = _Program(lowered.compile(), lowered.out_info)
        return self._programs[key].compiled(self._weights[depth], carry, statistics)

    def compile_together(self, function: StageFunction, paths: Iterable[Path], carry: PyTree) -> None:
        """Compiles what `run` needs for stages of these paths, in as many threads as there are processors.

        `carry`: the first stage's inputs, or their shapes. Programs are lowered here, since that holds Python's lock.
        """
        carries: dict[Path, PyTree] = {(): jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), carry)}
        pending: dict[Any, tuple[Future, PyTree]] = {}
        pool = ThreadPoolExecutor(processors())
        try:
            for here in (path[: i + 1] for path in paths for i in range(len(path))):
                if here not in carries:
                    before = carries[here[:-1]]
                    carries[here] = self._outputs(function, len(here) - 1, here[-1], before, pending, pool)
            began = monotonic()
            self._programs |= {key: _Program(future.result(), results) for key, (future, results) in pending.items()}
        finally:
            pool.shutdown(cancel_futures=True)  # After Ctrl-C only what is being compiled is waited for.
        if pending:
            jax.monitoring.record_event_duration_secs(WAITED, monotonic() - began)

    def release(self) -> None:
        """Removes all programs."""
        self._programs = {}

    def _outputs(
        self,
        function: StageFunction,
        depth: int,
        choice: tuple[int, ...],
        carry: PyTree,
        pending: dict[Any, tuple[Future, PyTree]],
        pool: ThreadPoolExecutor,
    ) -> PyTree:
        """The shapes of a stage's outputs; its program is being compiled from now on, if it is not yet."""
        if choice == SKIPPED:
            return carry
        key = self._key(function, depth, choice, carry)
        if key in self._programs:
            results = self._programs[key].results
        elif key in pending:
            results = pending[key][1]
        else:
            lowered = self._lowered(function, depth, choice, carry)
            results = lowered.out_info
            pending[key] = pool.submit(lowered.compile), results
        return results[0] if function is calibrate_stage else results

    def _key(self, function: StageFunction, depth: int, choice: tuple[int, ...], carry: PyTree) -> Any:
        return function, self._kinds[depth], choice, *((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(carry))

    def _lowered(self, function: StageFunction, depth: int, choice: tuple[int, ...], carry: PyTree) -> Any:
        run = jax.jit(partial(function, self._graphs[self._kinds[depth]], choice))
        return run.lower(self._weights[depth], carry, self.zero[depth])


def calibrate_stage(
    graph: nnx.GraphDef, choice: tuple[int, ...], weights: Any, carry: PyTree, total: Statistics
) -> tuple[PyTree, Statistics]:
    """The carry of a stage with the batch's own statistics, and these added to `total`."""
    carry, moments = nnx.merge(graph, weights)(carry, choice, RECALIBRATE)
    return carry, jax.tree.map(jnp.add, total, moments)


def run_stage(graph: nnx.GraphDef, choice: tuple[int, ...], weights: Any, carry: PyTree, statistics: Statistics) -> PyTree:
    """The carry of a stage with given statistics."""
    stage = nnx.merge(graph, weights)
    return micro_batched(lambda part: stage(part, choice, statistics)[0], carry, weights)
