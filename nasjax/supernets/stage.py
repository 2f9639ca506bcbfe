"""Stages, the pieces that a super-network is a sequence of.

A stage is `(carry, choice, statistics) -> (carry, statistics)`, where `choice` holds one option index for each gene that the
stage reads: a tuple of ints (*static*, the stage is the sub-network's) or an int32 array (*traced*, it is masked, and can be
vmapped). `statistics` are the batch-norm statistics to use; with None, or while re-calibrating with RECALIBRATE, the stage
uses the batch's own. It returns those used.
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
"""What `switch` gives to `forward`: a static choice but for kernel sizes, which it branches over."""
Statistics = dict[str, Moments]
UsedStatistics = Statistics | Recalibrate
"""What batch norms use: the statistics given (the batch's own where there are none), or RECALIBRATE."""


class Stage(nnx.Module):
    """A piece of a super-network with the genes it reads. Sub-classes write `forward`, everything else is
    derived from it.

    A stage with a `gate=(gene, value)` is left out (its carry passes unchanged) where that gene's value is below `value`.
    A choice has one index for each gene that the stage reads: the gate's first, then `genes`, which are all `forward` sees.
    A `repeated` stage runs once for each token that is decoded, the others once for each example.
    """

    genes: tuple[Gene, ...] = ()
    gate: tuple[Gene, float] | None = None
    repeated: bool = False

    sizes_only: tuple[int, ...] = ()
    """Which of `genes` are kernel sizes, read by one convolution and nothing else: evaluation by `switch` then branches
    over them round that convolution alone, which compiles far less."""

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        """The stage's arithmetic; each batch norm is called with `statistics.get(name)`, see `BatchNorm`."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def option(self, choice: Mixed, gene: int) -> Any:
        """The value, static or traced, of the `gene`-th of `genes` (whose options are whole numbers)."""
        if isinstance(choice[gene], Branching):
            return choice[gene]
        return pick(self.genes[gene].options, choice[gene])  # type: ignore[arg-type]

    @property
    def reads(self) -> tuple[Gene, ...]:
        """All genes of a choice: the gate's, then `genes`."""
        return self.genes if self.gate is None else (self.gate[0], *self.genes)

    def norms(self) -> dict[str, BatchNorm]:
        """The stage's batch norms by name: that of the attribute, or of the `ConvNorm` around."""
        return {
            ".".join(map(str, path[:-1] if len(path) > 1 and path[-1] == "norm" else path)): module
            for path, module in nnx.iter_modules(self)
            if isinstance(module, BatchNorm)
        }

    def stored(self) -> Statistics:
        """The statistics kept with the weights."""
        return {name: norm.stored() for name, norm in self.norms().items()}

    def keep(self, statistics: Statistics) -> None:
        """Stores statistics with the weights; in place."""
        for name, norm in self.norms().items():
            norm.mean[...], norm.variance[...] = statistics[name]

    def settings(self) -> str:
        """All that an answer depends on beside weights and genes: classes, strides, activations, epsilons, in words."""
        plain = (bool, int, float, str, tuple)
        return repr(
            [
                (path, type(module).__qualname__, sorted((k, v) for k, v in vars(module).items() if type(v) in plain))
                for path, module in nnx.iter_modules(self)
            ]
        )

    def bare(self) -> "Stage":
        """The stage without gate and names of genes: those that do the same with other weights are then of one structure."""
        bare = nnx.merge(*nnx.split(self))
        bare.gate = None
        bare.genes = tuple(Gene("", gene.options) for gene in self.genes)
        return bare

    def skipped(self, choice: Choice) -> bool | Bool[Array, ""]:
        """Whether the gate leaves the stage out."""
        return self.gate is not None and choice[0] < self.gate[0].level(self.gate[1])

    def __call__(
        self, carry: PyTree, choice: Choice, statistics: Statistics | Recalibrate | None
    ) -> tuple[PyTree, Statistics]:
        check_choice(choice, len(self.reads))
        skipped = self.skipped(choice)
        passed = (carry, statistics if isinstance(statistics, dict) and statistics else self.stored())
        if skipped is True:
            return passed
        known: Any = {} if statistics is None else statistics
        run = self.forward(carry, choice if self.gate is None else choice[1:], known)
        if skipped is False:
            return run
        return jax.tree.map(lambda new, old: jnp.where(skipped, old, new), run, passed)


def check_choice(choice: Any, genes: int) -> None:
    """Raises TypeError unless `choice` is a tuple of `genes` ints or an int32 array of that length."""
    if isinstance(choice, tuple) and len(choice) == genes and all(type(index) is int for index in choice):
        return
    if isinstance(choice, jax.Array) and choice.dtype == jnp.int32 and choice.shape == (genes,):
        return
    raise TypeError(
        f"a choice is a tuple of {genes} ints (static) or an int32 array of shape ({genes},) (traced), not {choice!r}"
    )
