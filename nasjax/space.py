"""Search spaces: named genes, and operations on architectures encoded as integer vectors.

An architecture is a vector of option indices, one per gene. A gene can depend on another one: it is *active* (exists) only
where its parent, usually a depth, is large enough. A *canonical* vector has index 0 for every inactive gene, so that two
vectors are equal exactly if they describe the same architecture.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from nasjax.errors import ConfigError
from nasjax.types import Arch, Mask, Population, PRNGKey

Option = int | float | str

PAIRS = 256
"""Up to so many rows are compared in all pairs, which is quicker than a table of their hashes."""

LARGEST_OPTION = 1e18
"""The greatest absolute value of an option: constraints compare it as they do metrics (`nasjax.objectives.LIMIT`)."""


@dataclass(frozen=True)
class Gene:
    """One choice of a search space.

    `options` are the allowed values: numbers in ascending order, or categories (words, True and False). With
    `needs=(parent, value)` the gene exists only in architectures whose `parent` gene is at least `value`. A `host` gene
    changes input shapes (for example the resolution), so populations are evaluated in groups of equal host genes. Raises
    ConfigError if the options are empty, repeated, not ascending, or of another type.
    """

    name: str
    options: tuple[Option, ...]
    needs: tuple[str, float] | None = None
    host: bool = False

    def __post_init__(self):
        if not self.options:
            raise ConfigError(f"gene {self.name!r} has no options; give at least one")
        plain = tuple(option.item() if isinstance(option, np.generic) else option for option in self.options)
        object.__setattr__(self, "options", plain)
        for option in self.options:
            # Not (x <= LARGEST_OPTION): NaN, too. An empty cell of a table means that the gene is switched off.
            if (
                not isinstance(option, Option)
                or option == ""
                or (option != str(option) and not abs(option) <= LARGEST_OPTION)
            ):
                raise ConfigError(
                    f"gene {self.name!r} cannot have the option {option!r}: options are numbers up to {LARGEST_OPTION:g}, "
                    f"words, true or false (words such as '3x3' and 'none' can stand for lists and null)"
                )
        if len(set(self.options)) != len(self.options) or len(set(map(str, self.options))) != len(self.options):
            raise ConfigError(f"gene {self.name!r} has a repeated option: {self.options}; list each option once")
        if self.ordered and list(self.options) != sorted(self.options):
            raise ConfigError(f"the options of gene {self.name!r} must be in ascending order, not {self.options}")

    @property
    def ordered(self) -> bool:
        """Whether the options are numbers; true and false are none."""
        return not any(isinstance(option, str | bool) for option in self.options)

    def level(self, value: float) -> int:
        """The smallest index whose option is at least `value`; the number of options if there is none."""
        return sum(option < value for option in self.options)  # type: ignore[operator]


@jax.tree_util.register_static
@dataclass(frozen=True)
class SearchSpace:
    """The Cartesian product of genes, some of which exist only if a parent gene (a depth) switches them on.

    Parents must come before the genes that need them. Raises ConfigError for repeated gene names or an invalid `needs`.

    >>> depth, first = Gene("depth", (1, 2)), Gene("kernel_1", (3, 5))
    >>> space = SearchSpace((depth, first, Gene("kernel_2", (3, 5), needs=("depth", 2))))
    >>> space.size
    6
    >>> space.encode({"depth": 1, "kernel_1": 5})
    array([0, 1, 0], dtype=int32)
    >>> space.decode(space.largest())
    {'depth': 2, 'kernel_1': 5, 'kernel_2': 5}
    >>> space.canonical(np.array([0, 1, 1]))  # with depth 1 there is no second block
    array([0, 1, 0], dtype=int32)
    """

    genes: tuple[Gene, ...]

    def __post_init__(self):
        known: dict[str, Gene] = {}
        for gene in self.genes:
            if gene.name in known:
                raise ConfigError(f"two genes are named {gene.name!r}; names must be unique")
            if gene.needs is not None:
                parent = known.get(gene.needs[0])
                if parent is None:
                    raise ConfigError(f"gene {gene.name!r} needs {gene.needs[0]!r}, which must be a gene listed before it")
                if not parent.ordered:
                    raise ConfigError(f"gene {gene.name!r} needs {parent.name!r}, whose options must be numbers")
            known[gene.name] = gene

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The genes' names, in order."""
        return tuple(gene.name for gene in self.genes)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """The number of options of each gene."""
        return tuple(len(gene.options) for gene in self.genes)

    def columns(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """The positions of the named genes in an architecture vector."""
        return tuple(self.names.index(name) for name in names)

    # -- active genes -------------------------------------------------------------------------------------------------

    @cached_property
    def _parents(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Per gene its parent's position (its own if it has none) and its least option index there; the tree depth."""
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
        """Mask of the genes that exist in each architecture; a NumPy array for NumPy input, a JAX array for JAX input."""
        parents, levels, depth = self._parents
        on = _array_module(archs).ones(archs.shape, bool)
        for _ in range(depth):
            on = on[..., parents] & (archs[..., parents] >= _broadcast(levels, archs))
        return on

    def canonical(self, archs: Int[Array | np.ndarray, "*pop genes"]) -> Int[Array | np.ndarray, "*pop genes"]:
        """Canonical vectors: inactive genes are set to 0 (int32); NumPy for NumPy input, JAX for JAX input."""
        return _array_module(archs).where(self.active(archs), archs, 0).astype(np.int32)

    # -- size ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _children(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Per gene the pairs (child, least option index at which the child exists)."""
        parents, levels, _ = self._parents
        return tuple(
            tuple((child, int(levels[child])) for child in range(len(self.genes)) if child != i and parents[child] == i)
            for i in range(len(self.genes))
        )

    @cached_property
    def _subspace_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Per gene and option the number of distinct choices of all genes below it in the tree."""
        sizes: list[tuple[int, ...]] = [()] * len(self.genes)
        for i in reversed(range(len(self.genes))):
            row = []
            for option in range(self.counts[i]):
                size = 1
                for child, level in self._children[i]:
                    size *= sum(sizes[child]) if option >= level else 1
                row.append(size)
            sizes[i] = tuple(row)
        return tuple(sizes)

    @cached_property
    def size(self) -> int:
        """The exact number of distinct architectures, as a Python int because it can exceed 64 bits."""
        size = 1
        for gene, sizes in zip(self.genes, self._subspace_sizes, strict=True):
            if gene.needs is None:
                size *= sum(sizes)
        return size

    # -- named choices ------------------------------------------------------------------------------------------------

    def encode(self, choices: Mapping[str, Option]) -> Arch:
        """The canonical vector of a mapping from gene names to options; inactive genes may be left out.

        Raises ConfigError for an unknown gene, an option that is not allowed, or a missing active gene.
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
        """The mapping from gene names to options of one architecture; inactive genes are left out."""
        on = np.asarray(self.active(arch))
        return {g.name: g.options[int(i)] for g, i, a in zip(self.genes, np.asarray(arch), on, strict=True) if a}

    def options_of(self, archs: Int[Array | np.ndarray, "pop genes"]) -> list[list[Option]]:
        """The options of each architecture in the order of the genes; "" where a gene is inactive."""
        choices = [self.decode(arch) for arch in archs]
        return [[chosen.get(name, "") for name in self.names] for chosen in choices]

    # -- random architectures -----------------------------------------------------------------------------------------

    @cached_property
    def _cumulative(self) -> Float[np.ndarray, "genes options"]:
        """Per gene the cumulative option probabilities that make all distinct architectures equally likely."""
        cumulative = np.ones((len(self.genes), max(self.counts, default=1)), np.float32)
        for i, sizes in enumerate(self._subspace_sizes):
            cumulative[i, : len(sizes) - 1] = [sum(sizes[: k + 1]) / sum(sizes) for k in range(len(sizes) - 1)]
        return cumulative

    @partial(jax.jit, static_argnums=(0, 2))
    def sample(self, key: PRNGKey, number: int) -> Population:
        """`number` canonical architectures, uniform over the distinct ones, with replacement."""
        reached = jnp.asarray(self._cumulative)[None] <= jax.random.uniform(key, (number, len(self.genes)))[..., None]
        return self.canonical(reached.sum(-1, dtype=jnp.int32))

    def sample_raw(self, key: PRNGKey, number: int, least: Int[Array | np.ndarray, " genes"] | None = None) -> Population:
        """`number` canonical architectures whose genes are drawn independently, each uniformly from its options.

        Unlike `sample`, this gives every depth equal probability. `least`: the least option index of every gene; None: 0.
        """
        zeros = jnp.zeros((number, len(self.genes)), jnp.int32)
        if least is None:
            return self.canonical(self._random_options(key, zeros))
        counts = _broadcast(np.array(self.counts, np.float32), zeros)
        least = jnp.asarray(least, jnp.int32)[None]
        drawn = (jax.random.uniform(key, zeros.shape) * (counts - least.astype(jnp.float32))).astype(jnp.int32)
        return self.canonical(least + drawn)

    def fill_inactive(self, key: PRNGKey, archs: Population) -> Int[Array, "pop genes"]:
        """Vectors with random options in inactive genes, so activating them does not favour option 0 (not canonical)."""
        archs = jnp.asarray(archs)
        if not any(gene.needs for gene in self.genes):
            return archs
        return jnp.where(self.active(archs), archs, self._random_options(key, archs))

    def _random_options(self, key: PRNGKey, archs: Population) -> Int[Array, "pop genes"]:
        """A uniformly random option index for every entry of `archs`."""
        counts = _broadcast(np.array(self.counts, np.float32), archs)
        return (jax.random.uniform(key, archs.shape) * counts).astype(jnp.int32)

    @partial(jax.jit, static_argnums=0)
    def mutate(self, key: PRNGKey, archs: Population, rate: float | Float[Array, ""]) -> Population:
        """Canonical mutants: with probability `rate` a gene changes to another of its options, drawn uniformly."""
        wake, choose, which = jax.random.split(key, 3)
        archs = self.fill_inactive(wake, archs)
        counts = _broadcast(np.array(self.counts, np.int32), archs)
        step = jax.random.randint(choose, archs.shape, 1, jnp.maximum(counts, 2))
        hit = jax.random.bernoulli(which, rate, archs.shape) & (counts > 1)
        return self.canonical(jnp.where(hit, (archs + step) % counts, archs).astype(jnp.int32))

    # -- features for predictors --------------------------------------------------------------------------------------

    @cached_property
    def _feature_columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per feature its gene, its option index, and whether it tests for equality (one-hot) or at least (thermometer)."""
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
        """0/1 features: thermometer code of genes with numeric options, one-hot code of the others; 0 where inactive.

        The thermometer of a gene that depends on another has one more digit, which says whether the gene exists.
        """
        genes, options, alone = self._feature_columns
        chosen = jnp.asarray(archs)[:, genes]
        wanted = _broadcast(options, chosen)
        lit = jnp.where(_broadcast(alone, chosen), chosen == wanted, chosen >= wanted)
        on = self.active(archs)[:, genes] if any(gene.needs for gene in self.genes) else True
        return (lit & on).astype(jnp.float32)

    @cached_property
    def feature_groups(self) -> tuple[int, ...]:
        """Per feature the number of its group: genes whose names differ only in digits (kernel_1, kernel_2)."""
        stems = [re.sub(r"[\W_]*\d+", "", gene.name) for gene in self.genes]
        known = list(dict.fromkeys(stems))
        return tuple(known.index(stems[gene]) for gene in self._feature_columns[0])

    # -- special architectures and spaces -----------------------------------------------------------------------------

    def largest(self) -> Arch:
        """The architecture with every gene at its last option."""
        return self.canonical(np.array(self.counts, np.int32) - 1)

    def smallest(self) -> Arch:
        """The architecture with every gene at its first option."""
        return np.zeros(len(self.genes), np.int32)

    def all_architectures(self) -> Population:
        """All distinct architectures in lexicographic order; enumerates the product of all options, so for small spaces."""
        grid = np.array(list(product(*map(range, self.counts))), np.int32)
        return np.unique(self.canonical(grid), axis=0)

    def fixed(self, arch: Int[Array | np.ndarray, " genes"]) -> "SearchSpace":
        """The space that contains only `arch`: its active genes, with one option each."""
        chosen = self.decode(arch)
        return SearchSpace(tuple(Gene(g.name, (chosen[g.name],), g.needs, g.host) for g in self.genes if g.name in chosen))


def _broadcast(row: np.ndarray, archs: Array | np.ndarray) -> Array | np.ndarray:
    """`row` broadcast to the shape of `archs`; done at run time, because XLA folds large constants slowly."""
    return _array_module(archs).broadcast_to(row, archs.shape)


def _array_module(array: Array | np.ndarray) -> Any:
    """`numpy` for NumPy arrays, so that host code does not wait for a device; `jax.numpy` for JAX arrays."""
    return np if isinstance(array, np.ndarray) else jnp


@jax.jit
def duplicates(archs: Population) -> Mask:
    """True for each row that equals an earlier row."""
    return repeats(row_hashes(archs))


def row_hashes(archs: Population) -> UInt32[Array, "pop 2"]:
    """Two 32-bit hashes of each row."""
    archs = jnp.asarray(archs).astype(jnp.uint32)
    rng = np.random.default_rng(0)
    hashes = []
    for _ in range(2):
        odd = rng.integers(0, 2**31, archs.shape[1], dtype=np.uint32) * 2 + 1
        mixed = (archs + 1) * _broadcast(odd, archs)
        mixed = (mixed ^ (mixed >> 15)) * np.uint32(2246822519)
        hashes.append((mixed ^ (mixed >> 13)).sum(1, dtype=jnp.uint32))
    return jnp.stack(hashes, 1)


def repeats(hashes: UInt32[Array, "pop 2"]) -> Mask:
    """True for each row whose `row_hashes` equal an earlier row's: by all pairs of few rows, or a hash table of many."""
    number, (first, second) = len(hashes), hashes.T
    position = jnp.arange(number, dtype=jnp.int32)
    if number <= PAIRS:
        same = (first[:, None] == first[None]) & (second[:, None] == second[None])
        return (same & (position[:, None] < position[None])).any(0)
    slots = 4 << (number - 1).bit_length()

    def insert(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        # The earliest row takes a slot and settles all rows that equal it; others try their next slot (double hashing).
        times, repeated, left = carry
        slot = (first + times * (second | 1)) % np.uint32(slots)
        table = jnp.zeros(slots, jnp.int32).at[jnp.where(left, slot, slots)].max(number - position, mode="drop")
        winner = number - table[slot]
        same = left & (first[winner] == first) & (second[winner] == second)
        return times + np.uint32(1), repeated | (same & (winner < position)), left & ~same

    start = jnp.uint32(0), jnp.zeros(number, bool), jnp.ones(number, bool)
    return lax.while_loop(lambda carry: carry[2].any(), insert, start)[1]
