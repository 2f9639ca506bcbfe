"""Search spaces: named genes, which of them exist in an architecture, and what can be done with the integer vectors.

An architecture is a vector of option indices, one a gene. A gene may exist only where another gene (a depth) is large
enough; where it does not exist its index is 0. Vectors of that form are *canonical*: equal architectures are equal vectors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nasjax.errors import ConfigError
from nasjax.types import Arch, Mask, Population, PRNGKey

Option = int | float | str


@dataclass(frozen=True)
class Gene:
    """One choice of a search space.

    `options` are the values allowed, ascending where they are numbers. `needs=(gene, value)` says that this gene exists only
    where the other gene's value is at least `value`. A `host` gene changes input shapes (a resolution), so that populations
    are grouped by it.
    """

    name: str
    options: tuple[Option, ...]
    needs: tuple[str, float] | None = None
    host: bool = False

    def __post_init__(self):
        if not self.options:
            raise ConfigError(f"gene {self.name!r} has no options")
        if len(set(self.options)) != len(self.options):
            raise ConfigError(f"gene {self.name!r} names an option twice: {self.options}")
        if self.ordered and list(self.options) != sorted(self.options):
            raise ConfigError(f"the options of gene {self.name!r} must ascend, not {self.options}")

    @property
    def ordered(self) -> bool:
        """Whether the options are numbers."""
        return not any(isinstance(option, str) for option in self.options)

    def level(self, value: float) -> int:
        """The smallest index whose option is at least `value`; the number of options where there is none."""
        return sum(option < value for option in self.options)  # type: ignore[operator]


@jax.tree_util.register_static
@dataclass(frozen=True)
class SearchSpace:
    """A product of genes, some of which exist only where a depth gene switches them on.

    >>> depth, first = Gene("depth", (1, 2)), Gene("kernel_1", (3, 5))
    >>> space = SearchSpace((depth, first, Gene("kernel_2", (3, 5), needs=("depth", 2))))
    >>> space.size
    6
    >>> space.encode({"depth": 1, "kernel_1": 5})
    array([0, 1, 0], dtype=int32)
    >>> space.decode(space.largest())
    {'depth': 2, 'kernel_1': 5, 'kernel_2': 5}
    >>> space.canonical(np.array([0, 1, 1]))  # the second block is not there
    array([0, 1, 0], dtype=int32)
    """

    genes: tuple[Gene, ...]

    def __post_init__(self):
        known: dict[str, Gene] = {}
        for gene in self.genes:
            if gene.name in known:
                raise ConfigError(f"two genes are named {gene.name!r}")
            if gene.needs is not None:
                parent = known.get(gene.needs[0])
                if parent is None:
                    raise ConfigError(f"gene {gene.name!r} needs {gene.needs[0]!r}, which does not come before it")
                if not parent.ordered:
                    raise ConfigError(f"gene {gene.name!r} needs {parent.name!r}, whose options are not numbers")
            known[gene.name] = gene

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(gene.name for gene in self.genes)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """The number of options, gene by gene."""
        return tuple(len(gene.options) for gene in self.genes)

    def columns(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Where the named genes stand in an architecture."""
        return tuple(self.names.index(name) for name in names)

    # -- which genes exist --------------------------------------------------------------------------------------------

    @cached_property
    def _parents(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Per gene: its parent's index (itself where it has none), the parent's index needed; and the depth of the tree."""
        parents, levels, depth = [], [], []
        for i, gene in enumerate(self.genes):
            if gene.needs is None:
                parents.append(i)
                levels.append(0)
                depth.append(0)
            else:
                parent = self.names.index(gene.needs[0])
                parents.append(parent)
                levels.append(self.genes[parent].level(gene.needs[1]))
                depth.append(depth[parent] + 1)
        return np.array(parents, np.int32), np.array(levels, np.int32), max(depth, default=0)

    def active(self, archs: Int[Array | np.ndarray, "*pop genes"]) -> Bool[Array | np.ndarray, "*pop genes"]:
        """Which genes exist in each architecture (NumPy in, NumPy out; JAX in, JAX out)."""
        parents, levels, depth = self._parents
        on = _library(archs).ones(archs.shape, bool)
        for _ in range(depth):
            on = on[..., parents] & (archs[..., parents] >= _rows(levels, archs))
        return on

    def canonical(self, archs: Int[Array | np.ndarray, "*pop genes"]) -> Int[Array | np.ndarray, "*pop genes"]:
        """The same architectures with index 0 for every gene that does not exist (NumPy or JAX, as `active`)."""
        return _library(archs).where(self.active(archs), archs, 0).astype(np.int32)

    # -- size ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _children(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Per gene: its children and the index from which each exists."""
        parents, levels, _ = self._parents
        return tuple(
            tuple((child, int(levels[child])) for child in range(len(self.genes)) if child != i and parents[child] == i)
            for i in range(len(self.genes))
        )

    @cached_property
    def _option_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Per gene and option: how many distinct architectures the genes below it have then."""
        sizes: list[tuple[int, ...]] = [()] * len(self.genes)
        for i in reversed(range(len(self.genes))):
            row = []
            for option in range(self.counts[i]):
                ways = 1
                for child, level in self._children[i]:
                    ways *= sum(sizes[child]) if option >= level else 1
                row.append(ways)
            sizes[i] = tuple(row)
        return tuple(sizes)

    @cached_property
    def size(self) -> int:
        """The exact number of distinct architectures (a Python int: 64 bits may not do)."""
        size = 1
        for gene, ways in zip(self.genes, self._option_sizes, strict=True):
            if gene.needs is None:
                size *= sum(ways)
        return size

    # -- words --------------------------------------------------------------------------------------------------------

    def encode(self, choices: Mapping[str, Option]) -> Arch:
        """The canonical vector of named choices; genes that do not exist may be left out.

        Raises ConfigError for an unknown gene, an option that is not allowed, or a gene that exists and is missing.
        """
        unknown = sorted(set(choices) - set(self.names))
        if unknown:
            raise ConfigError(f"unknown gene {unknown[0]!r}; allowed: {', '.join(self.names)}")
        arch = np.zeros(len(self.genes), np.int32)
        for i, gene in enumerate(self.genes):
            if gene.name not in choices:
                continue
            if choices[gene.name] not in gene.options:
                allowed = ", ".join(map(str, gene.options))
                raise ConfigError(f"gene {gene.name!r} cannot be {choices[gene.name]!r}; allowed: {allowed}")
            arch[i] = gene.options.index(choices[gene.name])
        for gene, on in zip(self.genes, self.active(arch), strict=True):
            if on and gene.name not in choices:
                raise ConfigError(f"gene {gene.name!r} is missing; allowed: {', '.join(map(str, gene.options))}")
        return self.canonical(arch)

    def decode(self, arch: Int[Array | np.ndarray, " genes"]) -> dict[str, Option]:
        """The named choices of one architecture, without the genes that do not exist in it."""
        on = np.asarray(self.active(arch))
        return {g.name: g.options[int(i)] for g, i, a in zip(self.genes, np.asarray(arch), on, strict=True) if a}

    # -- draws --------------------------------------------------------------------------------------------------------

    @cached_property
    def _cumulative(self) -> Float[np.ndarray, "genes options"]:
        """Probability of each option or an earlier one, where distinct architectures are equally likely; 1 from the last."""
        cumulative = np.ones((len(self.genes), max(self.counts, default=1)), np.float32)
        for i, ways in enumerate(self._option_sizes):
            cumulative[i, : len(ways) - 1] = [sum(ways[: k + 1]) / sum(ways) for k in range(len(ways) - 1)]
        return cumulative

    def sample(self, key: PRNGKey, number: int) -> Population:
        """Canonical architectures, each drawn uniformly from the distinct ones (with replacement)."""
        reached = jnp.asarray(self._cumulative)[None] <= jax.random.uniform(key, (number, len(self.genes)))[..., None]
        return self.canonical(reached.sum(-1, dtype=jnp.int32))

    def sample_raw(self, key: PRNGKey, number: int) -> Population:
        """Canonical architectures whose genes were drawn independently, each uniform over its options."""
        return self.canonical(self._uniform(key, jnp.zeros((number, len(self.genes)), jnp.int32)))

    def awaken(self, key: PRNGKey, archs: Population) -> Int[Array, "pop genes"]:
        """Raw vectors: genes that do not exist get random options, so that switching them on does not favour option 0."""
        archs = jnp.asarray(archs)
        if not any(gene.needs for gene in self.genes):
            return archs
        return jnp.where(self.active(archs), archs, self._uniform(key, archs))

    def _uniform(self, key: PRNGKey, archs: Population) -> Int[Array, "pop genes"]:
        """A random option for every gene of every row of `archs`."""
        counts = _rows(np.array(self.counts, np.float32), archs)
        return (jax.random.uniform(key, archs.shape) * counts).astype(jnp.int32)

    def mutate(self, key: PRNGKey, archs: Population, rate: float) -> Population:
        """Each gene is given, with probability `rate`, another of its options (uniformly); canonical."""
        wake, choose, which = jax.random.split(key, 3)
        archs = self.awaken(wake, archs)
        counts = _rows(np.array(self.counts, np.int32), archs)
        step = jax.random.randint(choose, archs.shape, 1, jnp.maximum(counts, 2))
        hit = jax.random.bernoulli(which, rate, archs.shape) & (counts > 1)
        return self.canonical(jnp.where(hit, (archs + step) % counts, archs).astype(jnp.int32))

    # -- for predictors -----------------------------------------------------------------------------------------------

    @cached_property
    def _feature_columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per feature: its gene, the option index it asks for, and whether it asks for that option alone."""
        columns = []
        for i, gene in enumerate(self.genes):
            if gene.ordered:
                start = 0 if gene.needs else 1
                columns += [(i, option, False) for option in range(start, len(gene.options))]
            else:
                columns += [(i, option, True) for option in range(len(gene.options))]
        genes, options, alone = zip(*columns, strict=True) if columns else ((), (), ())
        return np.array(genes, np.int32), np.array(options, np.int32), np.array(alone, bool)

    def features(self, archs: Population) -> Float[Array, "pop features"]:
        """What a predictor reads: 0/1 thermometers of ordered genes (the first digit: it exists), one-hot of the others."""
        genes, options, alone = self._feature_columns
        chosen = jnp.asarray(archs)[:, genes]
        wanted = _rows(options, chosen)
        lit = jnp.where(_rows(alone, chosen), chosen == wanted, chosen >= wanted)
        on = self.active(archs)[:, genes] if any(gene.needs for gene in self.genes) else True
        return (lit & on).astype(jnp.float32)

    @cached_property
    def families(self) -> tuple[int, ...]:
        """Per feature: the number of its gene's family, genes whose names differ in their digits alone."""
        stems = [re.sub(r"[\W_]*\d+", "", gene.name) for gene in self.genes]
        known = list(dict.fromkeys(stems))
        return tuple(known.index(stems[gene]) for gene in self._feature_columns[0])

    # -- particular architectures and spaces --------------------------------------------------------------------------

    def largest(self) -> Arch:
        """Every gene at its last option."""
        return self.canonical(np.array(self.counts, np.int32) - 1)

    def smallest(self) -> Arch:
        """Every gene at its first option."""
        return np.zeros(len(self.genes), np.int32)

    def everything(self) -> Population:
        """All distinct architectures in lexicographic order; for small spaces."""
        grid = np.array(list(product(*map(range, self.counts))), np.int32)
        return np.unique(self.canonical(grid), axis=0)

    def fixed(self, arch: Int[Array | np.ndarray, " genes"]) -> "SearchSpace":
        """The space whose only member is `arch`: the genes that exist in it, with one option each."""
        chosen = self.decode(arch)
        return SearchSpace(tuple(Gene(g.name, (chosen[g.name],), g.needs, g.host) for g in self.genes if g.name in chosen))


def _rows(row: np.ndarray, archs: Array | np.ndarray) -> Array | np.ndarray:
    """One row for every architecture; inside jit no constant of that size, which the compiler would fold for seconds."""
    return _library(archs).broadcast_to(row, archs.shape)


def _library(array: Array | np.ndarray) -> Any:
    """NumPy for NumPy's arrays, so that the host never waits for a device; JAX's for its own."""
    return np if isinstance(array, np.ndarray) else jnp


def duplicates(archs: Population) -> Mask:
    """True for each row that equals an earlier row; by two 32-bit hashes, so that it costs one sort."""
    archs = jnp.asarray(archs).astype(jnp.uint32)
    genes = archs.shape[1]
    rng = np.random.default_rng(0)
    hashes = []
    for _ in range(2):
        odd = rng.integers(0, 2**31, genes, dtype=np.uint32) * 2 + 1
        mixed = (archs + 1) * _rows(odd, archs)
        mixed = (mixed ^ (mixed >> 15)) * np.uint32(2246822519)
        hashes.append((mixed ^ (mixed >> 13)).sum(1, dtype=jnp.uint32))
    first, second, order = lax.sort((*hashes, jnp.arange(len(archs), dtype=jnp.int32)), num_keys=2)
    same = jnp.concatenate([jnp.zeros(1, bool), (first[1:] == first[:-1]) & (second[1:] == second[:-1])])
    return jnp.zeros(len(archs), bool).at[order].set(same)
