"""Stages: the parts that a super-network runs in sequence.

A stage is a function `(carry, choice, statistics) -> (carry, statistics)`. `choice` has one option index for each gene that
the stage reads: a tuple of ints (*static*: weights are sliced) or an int32 array (*traced*: weights are masked, so that the
stage can be vmapped). `statistics` are the batch-norm statistics to use, or None or RECALIBRATE for the batch's own. The
stage returns those that it used.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int, PyTree

from nasjax.space import Gene
from nasjax.supernets.elastic import BatchNorm, Branching, Moments, Recalibrate, pick

Choice = tuple[int, ...] | Int[Array, " _genes"]
Mixed = Choice | tuple[int | Branching, ...]
"""A choice as `forward` gets it: in evaluation by `switch`, static but for kernel sizes, which it branches over."""
Statistics = dict[str, Moments]
UsedStatistics = Statistics | Recalibrate
"""Statistics by name (a batch norm that is not among them uses the batch's own), or RECALIBRATE."""


class Stage(nnx.Module):
    """A part of a super-network and the genes that it reads. A sub-class defines `forward`; everything else is derived.

    A stage with `gate=(gene, value)` is skipped (its carry passes unchanged) if that gene's option is below `value`. A
    choice has one index for each gene that the stage reads: the gate's, then those of `genes`; `forward` gets these only. A
    `repeated` stage runs once for each decoded token, others once for each example.
    """

    genes: tuple[Gene, ...] = ()
    gate: tuple[Gene, float] | None = None
    repeated: bool = False

    place: int = 0
    """The stage's number among those of its kind, if it finds its part of the carry by that; costs do not depend on it."""

    borrowed: tuple[str, ...] = ()
    """Names of weights that another stage has, and shares with this one (`SuperNet.tie`): they are counted there."""

    sizes_only: tuple[int, ...] = ()
    """Indices of those `genes` that are the kernel size of one convolution and nothing else: evaluation by `switch` then
    branches over them within that convolution only, so that far less is compiled."""

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        """Runs the stage; each batch norm is called with `statistics.get(name)`, see `BatchNorm`."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def option(self, choice: Mixed, gene: int) -> Any:
        """The option, static or traced, of `genes[gene]`, whose options are integers."""
        if isinstance(choice[gene], Branching):
            return choice[gene]
        return pick(self.genes[gene].options, choice[gene])  # type: ignore[arg-type]

    @property
    def reads(self) -> tuple[Gene, ...]:
        """The genes of a choice: the gate's, then `genes`."""
        return self.genes if self.gate is None else (self.gate[0], *self.genes)

    def norms(self) -> dict[str, BatchNorm]:
        """The stage's batch norms by name: the path of their attribute, or of their `ConvNorm`'s."""
        return {
            ".".join(map(str, path[:-1] if len(path) > 1 and path[-1] == "norm" else path)): module
            for path, module in nnx.iter_modules(self)
            if isinstance(module, BatchNorm)
        }

    def stored(self) -> Statistics:
        """The stored batch-norm statistics by name."""
        return {name: norm.stored() for name, norm in self.norms().items()}

    def keep(self, statistics: Statistics) -> None:
        """Stores batch-norm statistics; in place."""
        for name, norm in self.norms().items():
            norm.mean[...], norm.variance[...] = statistics[name]

    def sort_units(self, least: tuple[int, ...]) -> None:
        """Sorts hidden units by importance, the most important first, where a gene leaves the last ones out; in place.

        The outputs of the largest sub-network stay the same. `least`: of each of `genes`, the least option index that
        sub-networks were trained at so far: units stay among those that the same widths left out, so that these
        sub-networks' outputs stay the same, too.

        Source: Once-for-All (arXiv:1908.09791, Section 3.3, elastic width).
        """

    def settings(self) -> str:
        """Text of all that outputs depend on besides weights and genes: classes, strides, activations, epsilons."""
        plain = (bool, int, float, str, tuple)
        return repr(
            [
                (path, type(module).__qualname__, sorted((k, v) for k, v in vars(module).items() if type(v) in plain))
                for path, module in nnx.iter_modules(self)
            ]
        )

    def bare(self) -> "Stage":
        """A copy without gate and names of genes: stages that differ only in these and in weights have equal structure."""
        bare = nnx.merge(*nnx.split(self))
        bare.gate = None
        bare.genes = tuple(Gene("", gene.options) for gene in self.genes)
        return bare

    def skipped(self, choice: Choice) -> bool | Bool[Array, ""]:
        """Whether the gate skips the stage."""
        return self.gate is not None and choice[0] < self.gate[0].level(self.gate[1])

    def __call__(
        self, carry: PyTree, choice: Choice, statistics: Statistics | Recalibrate | None
    ) -> tuple[PyTree, Statistics]:
        check_choice(choice, len(self.reads))
        skipped = self.skipped(choice)
        passed = (carry, statistics if isinstance(statistics, dict) and statistics else self.stored())
        if skipped is True:
            return passed
        given: UsedStatistics = {} if statistics is None else statistics
        result = self.forward(carry, choice if self.gate is None else choice[1:], given)
        if skipped is False:
            return result
        return jax.tree.map(lambda new, old: jnp.where(skipped, old, new), result, passed)


def check_choice(choice: Any, genes: int) -> None:
    """Raises TypeError unless `choice` is a tuple of `genes` ints or an int32 array of that length."""
    if isinstance(choice, tuple) and len(choice) == genes and all(type(index) is int for index in choice):
        return
    if isinstance(choice, jax.Array) and choice.dtype == jnp.int32 and choice.shape == (genes,):
        return
    raise TypeError(
        f"a choice must be a tuple of {genes} ints (static) or an int32 array of shape ({genes},) (traced), not {choice!r}"
    )
