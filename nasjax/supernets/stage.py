"""Stages, the pieces that a super-network is a sequence of, and the super-network itself.

A stage is `(carry, choice, statistics) -> (carry, statistics)`, where `choice` holds one option index for each gene that the
stage reads: a tuple of ints (*static*, the stage is the sub-network's) or an int32 array (*traced*, it is masked, and can be
vmapped). `statistics` are the batch-norm statistics to use; with None the stage uses the batch's own. It returns those used.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int, PyTree

from nasjax.errors import ConfigError
from nasjax.space import Gene, SearchSpace
from nasjax.supernets.elastic import BatchNorm, Branching, Moments, pick
from nasjax.supernets.summary import described

Choice = tuple[int, ...] | Int[Array, " _genes"]
Mixed = Choice | tuple[int | Branching, ...]
"""What `switch` gives to `forward`: a static choice but for kernel sizes, which it branches over."""
Statistics = dict[str, Moments]


class Stage(nnx.Module):
    """A piece of a super-network with the genes it reads. Sub-classes write `forward`, everything else is derived from it.

    A stage with a `gate=(gene, value)` is left out (its carry passes unchanged) where that gene's value is below `value`.
    A choice has one index for each gene that the stage reads: the gate's first, then `genes`, which are all `forward` sees.
    """

    genes: tuple[Gene, ...] = ()
    gate: tuple[Gene, float] | None = None

    sizes_only: tuple[int, ...] = ()
    """Which of `genes` are kernel sizes, read by one convolution and nothing else: evaluation by `switch` then branches over
    them round that convolution alone, which compiles far less."""

    def forward(self, carry: PyTree, choice: Choice, statistics: Statistics) -> tuple[PyTree, Statistics]:
        """The stage's arithmetic; `statistics.get(name)` is None where the batch's own are to be used."""
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

    def __call__(self, carry: PyTree, choice: Choice, statistics: Statistics | None) -> tuple[PyTree, Statistics]:
        check_choice(choice, len(self.reads))
        skipped = self.skipped(choice)
        passed = (carry, statistics or self.stored())
        if skipped is True:
            return passed
        run = self.forward(carry, choice if self.gate is None else choice[1:], statistics or {})
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


def check_inputs(inputs: PyTree, wanted: PyTree) -> None:
    """Raises ConfigError unless `inputs` are arrays as `wanted` (for one example), of any number, height and width."""
    given_tree, wanted_tree = str(jax.tree.structure(inputs)), str(jax.tree.structure(wanted))
    if given_tree != wanted_tree:
        raise ConfigError(f"the network takes a {wanted_tree}, not a {given_tree}")
    for given, one in zip(jax.tree.leaves(inputs), jax.tree.leaves(wanted), strict=True):
        words = f"{one.dtype} (batch, height, width, {one.shape[-1]})" if one.ndim == 4 else f"{one.dtype}, {one.ndim} axes"
        if given.ndim != one.ndim or given.dtype != one.dtype or (one.ndim == 4 and given.shape[-1] != one.shape[-1]):
            raise ConfigError(f"the network takes an array {words}; this one is {given.dtype} {given.shape}")
        if 0 in given.shape:
            raise ConfigError(f"an array of shape {given.shape} holds nothing: the network takes one example or more")


def check_arch(arch: Any, space: SearchSpace) -> None:
    """Raises ConfigError unless `arch` is one architecture, or an array of many, whose indices have an option.

    What is traced has no values to check: only its type and shape.
    """
    genes = len(space.genes)
    static = isinstance(arch, tuple)
    array = isinstance(arch, jax.Array | np.ndarray)
    kind = static and all(type(index) is int for index in arch)
    kind = kind or (isinstance(arch, jax.Array) and arch.dtype == jnp.int32)
    kind = kind or (isinstance(arch, np.ndarray) and np.issubdtype(arch.dtype, np.integer))
    shape: tuple[int, ...] = (len(arch),) if static else np.shape(arch) if array else ()
    if not kind or shape[-1:] != (genes,) or len(shape) > 2:
        given = f"{arch.dtype} {shape}" if array else f"a {type(arch).__name__}" + (f" of {shape[0]}" if static else "")
        raise ConfigError(
            f"an architecture is a tuple of {genes} ints or an int32 array ({genes},), a population int32 (pop, {genes}), "
            f"not {given}; net.space.encode makes one"
        )
    if isinstance(arch, jax.core.Tracer):
        return
    rows = np.atleast_2d(np.asarray(arch))
    outside = np.argwhere((rows < 0) | (rows >= np.array([len(gene.options) for gene in space.genes])))
    if len(outside):
        row, column = outside[0]
        gene = space.genes[column]
        raise ConfigError(
            f"gene {gene.name!r} has {len(gene.options)} options, from index 0: there is no index {rows[row, column]}"
        )


RESOLUTIONS = (160, 192, 224)
"""Pixels a side to choose from where the resolution is elastic and no list is given."""


def check_resolutions(resolutions: tuple[int, ...], image_size: int) -> None:
    """Raises ConfigError unless pictures of `image_size` pixels can be scaled down to all of `resolutions`."""
    for size in (image_size, *resolutions):
        if size < 1:
            raise ConfigError(f"a picture has at least one pixel a side, not {size}: change image_size or resolutions")
        if size > image_size:
            raise ConfigError(f"resolutions has {size}, more than image_size={image_size}")


class SuperNet(nnx.Module):
    """A sequence of stages; its search space is made of the genes that they read.

    `net(inputs, arch)` is what the last stage answers, with the stored batch-norm statistics: (batch, classes) logits of
    pictures for one architecture, a tuple of ints (static: sliced weights) or an int32 vector (traced: masked); with the
    population in front for an int32 matrix. An extracted network needs no architecture: it has one. A network of something
    else than pictures overrides `inputs`.
    """

    origin: Mapping[str, Any] = MappingProxyType({"name": "in memory"})
    """How it was made: `name` and settings."""

    def __init__(self, stages: Sequence[Stage], input_shape: tuple[int, ...] = (), resolutions: tuple[int, ...] = ()):
        self.stages = nnx.List(stages)
        self.input_shape = input_shape
        self.resolutions = resolutions

    @property
    def space(self) -> SearchSpace:
        """The resolution where it is elastic, the genes of the gates, then all others, in the order of the stages."""
        genes: dict[str, Gene] = {}
        if self.resolutions:
            genes["resolution"] = Gene("resolution", self.resolutions, host=True)
        gates = [stage.gate[0] for stage in self.stages if stage.gate is not None]
        for gene in gates + [gene for stage in self.stages for gene in stage.genes]:
            if genes.setdefault(gene.name, gene) != gene:
                raise ConfigError(f"two stages disagree about gene {gene.name!r}: {genes[gene.name]} and {gene}")
        return SearchSpace(tuple(genes.values()))

    def columns(self) -> tuple[tuple[int, ...], ...]:
        """Where in an architecture the genes stand that each stage reads."""
        space = self.space
        return tuple(space.columns(tuple(gene.name for gene in stage.reads)) for stage in self.stages)

    def resolution(self, arch: Sequence[int] | np.ndarray) -> int | None:
        """The side of the pictures that an architecture takes, in pixels; None where the resolution is not elastic.

        Stages take pictures of any size: whoever calls the network scales them (`nasjax.evaluation.host_genes`).
        """
        return self.resolutions[int(arch[0])] if self.resolutions else None

    def inputs(self, batch: int) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of what the first stage takes, for `batch` examples."""
        return jax.ShapeDtypeStruct((batch, *self.input_shape), jnp.float32)

    def example(self, resolution: int | None = None) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of one example; of a picture of that resolution where it is elastic."""
        if resolution is None:
            return self.inputs(1)
        return jax.ShapeDtypeStruct((1, resolution, resolution, *self.input_shape[2:]), jnp.float32)

    def output(self, batch: int = 1) -> PyTree[jax.ShapeDtypeStruct]:
        """Shape of what the largest sub-network answers."""
        largest = tuple(map(int, self.space.largest()))
        return jax.eval_shape(lambda inputs: self.forward(inputs, largest, None)[0], self.inputs(batch))

    def stored(self) -> tuple[Statistics, ...]:
        """The batch-norm statistics kept with the weights, stage by stage."""
        return tuple(stage.stored() for stage in self.stages)

    def choices(self, arch: Choice) -> tuple[Choice, ...]:
        """What each stage reads of an architecture (tuple of ints or int32 vector)."""
        check_choice(arch, len(self.space.genes))
        if isinstance(arch, tuple):
            return tuple(tuple(arch[column] for column in stage) for stage in self.columns())
        return tuple(arch[np.array(stage, np.int32)] for stage in self.columns())

    def forward(
        self, carry: PyTree, arch: Choice, statistics: tuple[Statistics, ...] | None
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """All stages in turn; with `statistics=None` every batch norm uses the batch's own and they are returned."""
        used = []
        for i, (stage, choice) in enumerate(zip(self.stages, self.choices(arch), strict=True)):
            carry, moments = stage(carry, choice, None if statistics is None else statistics[i])
            used.append(moments)
        return carry, tuple(used)

    def __call__(self, inputs: PyTree, arch: Choice | Int[Array | np.ndarray, "*pop genes"] | None = None) -> PyTree:
        """What the last stage answers, with the stored batch-norm statistics: (batch, classes) logits of pictures.

        `inputs`: (batch, height, width, channels) float32 pictures, normalised as those that the weights were trained on
        (`nasjax.supernets.create` says how Once-for-All's were). `arch`: a tuple of ints, an int32 vector, or an int32
        matrix for a population, whose axis then comes first; left out, it is the only one. Raises ConfigError for other
        types and shapes, and for indices without an option.
        """
        if arch is None:
            arch = self._only()
        inputs = jax.tree.map(jnp.asarray, inputs)
        check_inputs(inputs, self.inputs(1))
        check_arch(arch, self.space)
        if isinstance(arch, np.ndarray):
            arch = jnp.asarray(arch, jnp.int32)
        if isinstance(arch, jax.Array) and arch.ndim == 2:
            return jax.vmap(lambda one: self.forward(inputs, one, self.stored())[0])(arch)
        return self.forward(inputs, arch, self.stored())[0]

    def __str__(self) -> str:
        return described(self)

    def _only(self) -> tuple[int, ...]:
        space = self.space
        if space.size != 1:
            raise TypeError(f"which of {space.size} sub-networks? give an architecture (net.space.encode makes one)")
        return (0,) * len(space.genes)
