"""Super-networks: sequences of stages, whose genes make the search space."""

from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, PyTree

from nasjax.errors import ConfigError
from nasjax.jax_defaults import with_jax_defaults
from nasjax.registry import IN_MEMORY
from nasjax.space import Gene, Option, SearchSpace
from nasjax.supernets.elastic import Recalibrate
from nasjax.supernets.resolution import resized
from nasjax.supernets.stage import Choice, Stage, Statistics, check_choice
from nasjax.supernets.summary import summary

HostOptions = tuple[Option, ...]
"""The options of an architecture's host genes, in the order of the search space."""


def _in_32_bits(leaf: Any) -> Array:
    """An array as JAX takes it by default, where 64-bit numbers are on too."""
    array = jnp.asarray(leaf)
    return array.astype({"float64": np.float32, "int64": np.int32}.get(str(array.dtype), array.dtype))


def check_inputs(inputs: PyTree, wanted: PyTree) -> None:
    """Raises ConfigError unless `inputs` have structure, types and axes of `wanted`; batch, height, width are free."""
    given_tree, wanted_tree = str(jax.tree.structure(inputs)), str(jax.tree.structure(wanted))
    if given_tree != wanted_tree:
        raise ConfigError(f"the network reads inputs of structure {wanted_tree}, not {given_tree}")
    for given, one in zip(jax.tree.leaves(inputs), jax.tree.leaves(wanted), strict=True):
        words = f"{one.dtype} (batch, height, width, {one.shape[-1]})" if one.ndim == 4 else f"{one.dtype}, {one.ndim} axes"
        if given.ndim != one.ndim or given.dtype != one.dtype or (one.ndim == 4 and given.shape[-1] != one.shape[-1]):
            raise ConfigError(f"the network reads an array {words}, not {given.dtype} {given.shape}")
        if 0 in given.shape:
            raise ConfigError(f"an input of shape {given.shape} is empty: the network reads at least one example")


def check_arch(arch: Any, space: SearchSpace) -> None:
    """Raises ConfigError unless `arch` is one architecture, or an array of several, and every index has an option.

    Of traced arrays only type and shape are checked.
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
            f"an architecture must be a tuple of {genes} ints or an int32 array ({genes},), a population an int32 array "
            f"(pop, {genes}), not {given}; net.space.encode makes one"
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


class SuperNet(nnx.Module):
    """A sequence of stages; the genes that they read make its search space.

    `net(inputs, arch)` returns the last stage's outputs with the stored batch-norm statistics, (batch, classes) logits for
    images. `arch` is a tuple of ints (static: weights are sliced), an int32 vector (traced: weights are masked), or an int32
    matrix for a population, whose axis then comes first. An extracted network needs no `arch`.

    The inputs are float32 images of `input_shape` (height, width, channels), scaled to one of `resolutions` if there are
    any. A network with other inputs overrides `inputs`; one with other host genes overrides `host_genes` and `prepare`.
    """

    origin: Mapping[str, Any] = IN_MEMORY
    """The `name` and settings that it was created with."""

    untrained: str | None = None
    """The digest of its weights as they were initialised; None where they may be trained."""

    facts: Mapping[str, Any] = MappingProxyType({})
    """What the file of its weights says of them, such as the vocabularies that they were trained with."""

    steps: int = 1
    """The number of times that repeated stages run for one example, given by the task; it multiplies costs and latencies."""

    beams: int = 1
    """The number of continuations of one example that a step decodes at once, given by the task; for latencies."""

    def __init__(self, stages: Sequence[Stage], input_shape: tuple[int, ...] = (), resolutions: tuple[int, ...] = ()):
        self.stages = nnx.List(stages)
        self.input_shape = input_shape
        self.resolutions = resolutions

    # -- genes --------------------------------------------------------------------------------------------------------

    @property
    def host_genes(self) -> tuple[Gene, ...]:
        """The genes that change the shapes of inputs and that no stage reads, such as the resolution."""
        return (Gene("resolution", self.resolutions, host=True),) if self.resolutions else ()

    @property
    def space(self) -> SearchSpace:
        """The host genes, the genes of the gates, then all others, in the order of the stages."""
        genes = {gene.name: gene for gene in self.host_genes}
        gates = [stage.gate[0] for stage in self.stages if stage.gate is not None]
        for gene in gates + [gene for stage in self.stages for gene in stage.genes]:
            if genes.setdefault(gene.name, gene) != gene:
                raise ConfigError(f"two stages define gene {gene.name!r} differently: {genes[gene.name]} and {gene}")
        return SearchSpace(tuple(genes.values()))

    def columns(self) -> tuple[tuple[int, ...], ...]:
        """The columns of an architecture that each stage reads."""
        space = self.space
        return tuple(space.columns(tuple(gene.name for gene in stage.reads)) for stage in self.stages)

    def host_columns(self) -> tuple[int, ...]:
        """The columns of an architecture that hold the host genes."""
        return self.space.columns(tuple(gene.name for gene in self.host_genes))

    def host(self, arch: Sequence[int] | np.ndarray) -> HostOptions:
        """The options of an architecture's host genes; empty if there are none."""
        return tuple(
            gene.options[int(arch[column])] for gene, column in zip(self.host_genes, self.host_columns(), strict=True)
        )

    def all_hosts(self) -> list[HostOptions]:
        """Every combination of the host genes' options; one empty combination if there are none."""
        return list(product(*(gene.options for gene in self.host_genes)))

    def fix_host(self, host: HostOptions) -> None:
        """Reduces every host gene to one option, as extraction does; in place."""
        if host:
            if type(self).host_genes is not SuperNet.host_genes and type(self).fix_host is SuperNet.fix_host:
                raise ConfigError(f"{type(self).__name__} has host genes of its own: it must override fix_host too")
            (resolution,) = host
            self.resolutions = (int(resolution),)
            self.input_shape = (int(resolution), int(resolution), *self.input_shape[2:])

    def tie(self) -> None:
        """Makes weights that stages share (`Stage.borrowed`) one variable again after extraction; in place."""

    def sort_units(self, least: Sequence[int]) -> None:
        """Sorts the hidden units of every stage by importance (`Stage.sort_units`); in place.

        `least`: of every gene, the least option index that sub-networks were trained at so far.
        """
        columns = {gene.name: column for column, gene in enumerate(self.space.genes)}
        for stage in self.stages:
            stage.sort_units(tuple(least[columns[gene.name]] for gene in stage.genes))

    @property
    def first_repeated(self) -> int:
        """The index of the first repeated stage, or the number of stages if none is repeated.

        Raises ConfigError if a stage that is not repeated follows.
        """
        repeated = [stage.repeated for stage in self.stages]
        first = repeated.index(True) if any(repeated) else len(repeated)
        if not all(repeated[first:]):
            raise ConfigError("the repeated stages of a super-network must be its last ones")
        return first

    # -- inputs and outputs -------------------------------------------------------------------------------------------

    def inputs(self, batch: int) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of the inputs of `batch` examples, before `prepare`."""
        return jax.ShapeDtypeStruct((batch, *self.input_shape), jnp.float32)

    def prepare(self, inputs: PyTree, host: HostOptions) -> PyTree:
        """The inputs that the first stage reads with these host options: images scaled to the resolution. Batch first."""
        return resized(inputs, int(host[0])) if host else inputs

    def example(self, host: HostOptions | None = None, batch: int = 1) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes that the first stage reads, for `batch` examples at these host options; None: the last of them."""
        host = self.all_hosts()[-1] if host is None else host
        return jax.eval_shape(lambda inputs: self.prepare(inputs, host), self.inputs(batch))

    def output(self, batch: int = 1) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of the largest sub-network's outputs."""
        largest = tuple(map(int, self.space.largest()))
        return jax.eval_shape(lambda inputs: self.forward(inputs, largest, None)[0], self.inputs(batch))

    def tokens(self, batch: int) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of the tokens that one step of the repeated stages reads."""
        return jax.ShapeDtypeStruct((batch,), jnp.int32)

    def step_carry(self, stage: int, carry: PyTree[jax.ShapeDtypeStruct]) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes that stage number `stage` is called with, if the one before it returns `carry`.

        The first repeated stage gets (tokens, carry).
        """
        if stage != self.first_repeated:
            return carry
        return self.tokens(jax.tree.leaves(carry)[0].shape[0]), jax.eval_shape(self.begin, carry)

    def begin(self, carry: PyTree) -> PyTree:
        """The carry of the first of `steps` steps, from that of the last stage that is not repeated: with all caches."""
        return carry

    def shapes(self, steps: int = 1, beams: int = 1) -> "SuperNet":
        """An abstract copy, shapes without values, whose repeated stages run `steps` times for `beams` of one example."""
        abstract = nnx.eval_shape(lambda: self)
        if self.first_repeated < len(self.stages):
            abstract.steps, abstract.beams = steps, beams
        return abstract

    # -- batch norms --------------------------------------------------------------------------------------------------

    @property
    def has_norms(self) -> bool:
        """Whether there are batch norms, which each sub-network re-calibrates."""
        return any(stage.norms() for stage in self.stages)

    def stored(self) -> tuple[Statistics, ...]:
        """The stored batch-norm statistics, stage by stage."""
        return tuple(stage.stored() for stage in self.stages)

    # -- running ------------------------------------------------------------------------------------------------------

    def choices(self, arch: Choice) -> tuple[Choice, ...]:
        """Each stage's choice in an architecture (a tuple of ints or an int32 vector)."""
        check_choice(arch, len(self.space.genes))
        if isinstance(arch, tuple):
            return tuple(tuple(arch[column] for column in stage) for stage in self.columns())
        return tuple(arch[np.array(stage, np.int32)] for stage in self.columns())

    def forward(
        self,
        carry: PyTree,
        arch: Choice,
        statistics: tuple[Statistics, ...] | Recalibrate | None,
        start: int | None = None,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """Runs stages `start` to `stop` (by default all); returns the carry and the batch-norm statistics used.

        Without statistics (None or RECALIBRATE) every batch norm uses the batch's own.
        """
        used = []
        choices = self.choices(arch)
        for i in range(len(self.stages))[start:stop]:
            given = statistics[i] if isinstance(statistics, tuple) else statistics
            carry, moments = self.stages[i](carry, choices[i], given)
            used.append(moments)
        return carry, tuple(used)

    @with_jax_defaults
    def __call__(self, inputs: PyTree, arch: Choice | Int[Array | np.ndarray, "*pop genes"] | None = None) -> PyTree:
        """The last stage's outputs, with the stored batch-norm statistics: (batch, classes) logits of images.

        `inputs`: (batch, height, width, channels) float32 images, normalised like those that the weights were trained on
        (for Once-for-All, see `nasjax.supernets.create`). `arch`: a tuple of ints, an int32 vector, or an int32 matrix for
        a population, whose axis then comes first; may be omitted for an extracted network. Raises ConfigError for other
        types and shapes, and for indices without an option.
        """
        if arch is None:
            arch = self._only_arch()
        inputs = jax.tree.map(_in_32_bits, inputs)
        check_inputs(inputs, self.inputs(1))
        check_arch(arch, self.space)
        if isinstance(arch, np.ndarray):
            arch = jnp.asarray(arch, jnp.int32)
        if isinstance(arch, jax.Array) and arch.ndim == 2:
            return jax.vmap(lambda one: self.forward(inputs, one, self.stored())[0])(arch)
        return self.forward(inputs, arch, self.stored())[0]

    def __str__(self) -> str:
        return summary(self)

    def _only_arch(self) -> tuple[int, ...]:
        """The architecture of an extracted network. Raises TypeError for a network with several."""
        space = self.space
        if space.size != 1:
            raise TypeError(f"the network has {space.size} sub-networks: pass an architecture (net.space.encode makes one)")
        return (0,) * len(space.genes)
