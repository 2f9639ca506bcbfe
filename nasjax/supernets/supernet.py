"""The super-network: a sequence of stages, its search space made of the genes that they read."""

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
from nasjax.space import Gene, Option, SearchSpace
from nasjax.supernets.elastic import Recalibrate
from nasjax.supernets.resolution import resized
from nasjax.supernets.stage import Choice, Stage, Statistics, check_choice
from nasjax.supernets.summary import summary

HostOptions = tuple[Option, ...]
"""The options of an architecture's host genes, in the order of the search space."""


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


class SuperNet(nnx.Module):
    """A sequence of stages; its search space is made of the genes that they read.

    `net(inputs, arch)` are the last stage's outputs with the stored batch-norm statistics: (batch, classes) logits of images
    for one architecture, a tuple of ints (static: sliced weights) or an int32 vector (traced: masked); with the population
    in front for an int32 matrix. An extracted network needs no architecture: it has one.

    It reads float32 images of `input_shape` (height, width, channels), scaled to one of `resolutions` where there are any. A
    network that reads something else overrides `inputs`, and one with other host genes `host_genes` and `prepare`.
    """

    origin: Mapping[str, Any] = MappingProxyType({"name": "in memory"})
    """How it was made: `name` and settings."""

    steps: int = 1
    """How many times the repeated stages run for one example: a task says it, costs and latencies are multiplied by it."""

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
                raise ConfigError(f"two stages disagree about gene {gene.name!r}: {genes[gene.name]} and {gene}")
        return SearchSpace(tuple(genes.values()))

    def columns(self) -> tuple[tuple[int, ...], ...]:
        """The columns of an architecture that each stage reads."""
        space = self.space
        return tuple(space.columns(tuple(gene.name for gene in stage.reads)) for stage in self.stages)

    def host_columns(self) -> tuple[int, ...]:
        """The columns of an architecture that hold the host genes."""
        return self.space.columns(tuple(gene.name for gene in self.host_genes))

    def host(self, arch: Sequence[int] | np.ndarray) -> HostOptions:
        """The options of an architecture's host genes; empty where there are none."""
        return tuple(
            gene.options[int(arch[column])] for gene, column in zip(self.host_genes, self.host_columns(), strict=True)
        )

    def all_hosts(self) -> list[HostOptions]:
        """Every combination of the host genes' options; one empty combination where there are none."""
        return list(product(*(gene.options for gene in self.host_genes)))

    def fix_host(self, host: HostOptions) -> None:
        """Keeps one option of every host gene: what extraction does with them; in place."""
        if host:
            (resolution,) = host
            self.resolutions = (int(resolution),)
            self.input_shape = (int(resolution), int(resolution), *self.input_shape[2:])

    @property
    def first_repeated(self) -> int:
        """The number of stages that run once for each example; those behind them run once for each decoded token.

        Raises ConfigError where a stage that runs once stands behind a repeated one.
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
        """Inputs, batch first, as an architecture with these host options reads them: images at its resolution."""
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
        """Shapes that a stage is called with where `carry` is what the one before has left: the first repeated one gets
        a step's (tokens, carry)."""
        if stage != self.first_repeated:
            return carry
        return self.tokens(jax.tree.leaves(carry)[0].shape[0]), carry

    def shapes(self, steps: int = 1) -> "SuperNet":
        """The network without values, its repeated stages running `steps` times for one example."""
        abstract = nnx.eval_shape(lambda: self)
        if self.first_repeated < len(self.stages):
            abstract.steps = steps
        return abstract

    # -- batch norms --------------------------------------------------------------------------------------------------

    @property
    def has_norms(self) -> bool:
        """Whether there are batch norms, which each sub-network re-calibrates."""
        return any(stage.norms() for stage in self.stages)

    def stored(self) -> tuple[Statistics, ...]:
        """The batch-norm statistics kept with the weights, stage by stage."""
        return tuple(stage.stored() for stage in self.stages)

    # -- running ------------------------------------------------------------------------------------------------------

    def choices(self, arch: Choice) -> tuple[Choice, ...]:
        """The choice of each stage in an architecture (tuple of ints or int32 vector)."""
        check_choice(arch, len(self.space.genes))
        if isinstance(arch, tuple):
            return tuple(tuple(arch[column] for column in stage) for stage in self.columns())
        return tuple(arch[np.array(stage, np.int32)] for stage in self.columns())

    def forward(
        self,
        carry: PyTree,
        arch: Choice,
        statistics: tuple[Statistics, ...] | Recalibrate | None,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """Stages `start` to `stop` in turn (all), and the statistics that all their batch norms used.

        Without statistics (None or RECALIBRATE) every batch norm uses the batch's own.
        """
        used = []
        choices = self.choices(arch)
        for i in range(len(self.stages))[start:stop]:
            known = statistics[i] if isinstance(statistics, tuple) else statistics
            carry, moments = self.stages[i](carry, choices[i], known)
            used.append(moments)
        return carry, tuple(used)

    def __call__(self, inputs: PyTree, arch: Choice | Int[Array | np.ndarray, "*pop genes"] | None = None) -> PyTree:
        """The last stage's outputs, with the stored batch-norm statistics: (batch, classes) logits of images.

        `inputs`: (batch, height, width, channels) float32 images, normalised as those that the weights were trained on
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
        return summary(self)

    def _only(self) -> tuple[int, ...]:
        space = self.space
        if space.size != 1:
            raise TypeError(f"which of {space.size} sub-networks? give an architecture (net.space.encode makes one)")
        return (0,) * len(space.genes)
