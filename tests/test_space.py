"""The search space against enumeration, Python sets and counts done by hand."""

import math
from itertools import product

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chi2

from nasjax.space import Gene, SearchSpace, duplicates


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


@st.composite
def spaces(draw):
    """Up to six genes of up to four options, each perhaps needing any earlier number (the depth of a depth included)."""
    genes = []
    for i in range(draw(st.integers(1, 6))):
        options = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
        ordered = draw(st.booleans())
        options = tuple(sorted(options)) if ordered else tuple(f"o{option}" for option in options)
        parents = [gene for gene in genes if gene.ordered]
        needs = None
        if parents and draw(st.booleans()):
            # 10 is more than any option: such a gene never exists.
            needs = (draw(st.sampled_from(parents)).name, draw(st.sampled_from([0, 2, 4, 6, 8, 10])))
        genes.append(Gene(f"g{i}", options, needs))
    return SearchSpace(tuple(genes))


def named_choices(space, arch):
    """The named choices of a raw vector, by following each gene's needs up the tree."""
    chosen = {gene.name: gene.options[index] for gene, index in zip(space.genes, arch, strict=True)}
    by_name = {gene.name: gene for gene in space.genes}

    def exists(name):
        needs = by_name[name].needs
        return needs is None or (exists(needs[0]) and chosen[needs[0]] >= needs[1])

    return {name: option for name, option in chosen.items() if exists(name)}


def grid(space):
    return np.array(list(product(*map(range, space.counts))), np.int32)


NESTED = SearchSpace(
    (
        Gene("depth", (1, 2, 3)),
        Gene("inner", (0, 1, 2), ("depth", 2)),
        Gene("kind", ("conv", "pool"), ("inner", 1)),
        Gene("width", (8, 16, 32), ("inner", 2)),
        Gene("alone", (5,)),
        Gene("kernel", (3, 5), ("depth", 3)),
        Gene("resolution", (160, 224), host=True),
    )
)


@settings(max_examples=25, deadline=None)
@given(spaces())
def test_named_choices_vectors_and_size_agree_with_enumeration(space):
    raw = grid(space)
    canonical = space.canonical(raw)
    named = [named_choices(space, arch) for arch in raw]
    for i in range(0, len(raw), max(len(raw) // 50, 1)):
        assert space.decode(raw[i]) == named[i]
        assert space.decode(canonical[i]) == named[i]
        np.testing.assert_array_equal(space.encode(named[i]), canonical[i])
    distinct = {tuple(choices.items()) for choices in named}
    assert space.size == len(distinct) == len(space.all_architectures())
    assert {tuple(space.decode(arch).items()) for arch in space.all_architectures()} == distinct


@settings(max_examples=25, deadline=None)
@given(spaces())
def test_canonical_keeps_what_exists_zeroes_the_rest_and_is_idempotent(space):
    raw = grid(space)
    active, canonical = space.active(raw), space.canonical(raw)
    np.testing.assert_array_equal(canonical[active], raw[active])
    assert not canonical[~active].any()
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    np.testing.assert_array_equal(space.active(canonical), active)
    np.testing.assert_array_equal(jax.jit(space.canonical)(raw), canonical)


def test_ofa_mobilenet_v3_has_the_published_number_of_sub_networks():
    genes = [Gene(f"depth{stage}", (2, 3, 4)) for stage in range(5)]
    for stage, block in product(range(5), range(4)):
        needs = (f"depth{stage}", block + 1) if block >= 2 else None
        genes += [Gene(f"kernel{stage}{block}", (3, 5, 7), needs), Gene(f"expand{stage}{block}", (3, 4, 6), needs)]
    space = SearchSpace(tuple(genes))
    assert space.size == (9**2 + 9**3 + 9**4) ** 5 == 21758655492572485851  # about 2.2e19: Cai et al. 2020, section 3.2


def chi_square(draws, expected):
    """Pearson's statistic of the rows of `draws`, all of which must be expected ones."""
    seen, counts = np.unique(draws, axis=0, return_counts=True)
    observed = dict.fromkeys(expected, 0)
    for row, count in zip(seen, counts, strict=True):
        assert tuple(row.tolist()) in expected
        observed[tuple(row.tolist())] = count
    return sum((observed[row] - n) ** 2 / n for row, n in expected.items())


def test_sample_is_uniform_over_distinct_architectures():
    number = 20_000
    expected = {tuple(arch.tolist()): number / NESTED.size for arch in NESTED.all_architectures()}
    statistic = chi_square(np.asarray(NESTED.sample(jax.random.key(0), number)), expected)
    assert statistic < chi2.ppf(0.999, len(expected) - 1)


def test_sample_raw_draws_every_gene_uniformly_before_it_is_made_canonical():
    number = 20_000
    raw = NESTED.canonical(grid(NESTED))
    seen, counts = np.unique(raw, axis=0, return_counts=True)
    expected = {tuple(row.tolist()): number * n / len(raw) for row, n in zip(seen, counts, strict=True)}
    assert len(set(expected.values())) > 1  # else it could not be told from `sample`
    statistic = chi_square(np.asarray(NESTED.sample_raw(jax.random.key(0), number)), expected)
    assert statistic < chi2.ppf(0.999, len(expected) - 1)


@settings(max_examples=6, deadline=None)
@given(spaces(), st.integers(0, 2**31 - 1))
def test_mutate_changes_what_it_may_and_stays_canonical(space, seed):
    key, draw = jax.random.split(jax.random.key(seed))
    archs = np.asarray(space.sample(draw, 64))
    still, all_changed = np.asarray(space.mutate(key, archs, 0.0)), np.asarray(space.mutate(key, archs, 1.0))
    np.testing.assert_array_equal(still, archs)
    np.testing.assert_array_equal(space.canonical(all_changed), all_changed)
    assert ((all_changed >= 0) & (all_changed < np.array(space.counts))).all()
    # At rate 1 every gene with a choice that exists before and after has changed, and no gene without one.
    both = space.active(archs) & space.active(all_changed)
    np.testing.assert_array_equal(all_changed[both] != archs[both], (np.array(space.counts) > 1)[np.nonzero(both)[1]])


def test_mutate_hits_genes_at_the_rate_and_reaches_every_other_option_equally():
    space = SearchSpace((Gene("a", (1, 2, 3, 4)), Gene("b", ("x", "y", "z"))))
    archs = np.tile(np.array([[2, 0]], np.int32), (20_000, 1))
    mutants = np.asarray(space.mutate(jax.random.key(3), archs, 0.3))
    for column, others in ((0, (0, 1, 3)), (1, (1, 2))):
        share = [(mutants[:, column] == other).mean() for other in others]
        np.testing.assert_allclose(share, 0.3 / len(others), atol=4 * math.sqrt(0.1 * 0.9 / 20_000))


def test_a_gene_that_is_switched_on_does_not_favour_its_first_option():
    space = SearchSpace((Gene("depth", (1, 2)), Gene("width", (1, 2, 3, 4), ("depth", 2))))
    mutants = np.asarray(space.mutate(jax.random.key(0), np.zeros((8_000, 2), np.int32), 1.0))
    assert (mutants[:, 0] == 1).all()
    np.testing.assert_allclose(np.bincount(mutants[:, 1], minlength=4) / 8_000, 0.25, atol=0.02)


@settings(max_examples=6, deadline=None)
@given(spaces(), st.integers(0, 2**31 - 1))
def test_fill_inactive_keeps_active_genes_and_draws_the_others(space, seed):
    archs = np.asarray(space.sample(jax.random.key(seed), 32))
    raw = np.asarray(space.fill_inactive(jax.random.key(seed + 1), archs))
    np.testing.assert_array_equal(space.canonical(raw), archs)
    assert ((raw >= 0) & (raw < np.array(space.counts))).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 3]), st.sampled_from([1, 20]), hnp.arrays(np.int32, (24, 3), elements=st.integers(0, 2)))
def test_duplicates_are_those_of_a_python_set(genes, times, archs):
    archs = np.tile(archs[:, :genes], (times, 1))  # few rows are compared in all pairs, 480 by a hash table
    seen, expected = set(), []
    for row in map(tuple, archs.tolist()):
        expected.append(row in seen)
        seen.add(row)
    np.testing.assert_array_equal(duplicates(archs), expected)


def test_no_two_of_a_hundred_thousand_distinct_architectures_are_taken_for_one():
    space = SearchSpace(tuple(Gene(f"g{i}", (0, 1, 2)) for i in range(40)))
    archs = np.asarray(space.sample(jax.random.key(0), 100_000))
    assert int(duplicates(archs).sum()) == len(archs) - len(np.unique(archs, axis=0))


@settings(max_examples=15, deadline=None)
@given(spaces(), st.integers(0, 2**31 - 1))
def test_fixed_is_the_space_of_that_architecture_alone(space, seed):
    arch = np.asarray(space.sample(jax.random.key(seed), 1))[0]
    fixed = space.fixed(arch)
    assert fixed.size == 1
    assert fixed.decode(fixed.smallest()) == space.decode(arch)


@settings(max_examples=15, deadline=None)
@given(spaces())
def test_features_tell_architectures_apart_and_ignore_genes_that_do_not_exist(space):
    raw, archs = grid(space), space.all_architectures()
    np.testing.assert_array_equal(space.features(raw), space.features(space.canonical(raw)))
    assert len(np.unique(np.asarray(space.features(archs)), axis=0)) == space.size


def test_features_of_numbers_are_thermometers_and_of_names_one_hot():
    space = SearchSpace((Gene("d", (1, 2, 3)), Gene("e", (4, 6), ("d", 2)), Gene("n", ("a", "b"))))
    archs = np.array([[0, 0, 0], [1, 0, 1], [2, 1, 0]], np.int32)
    expected = [[0, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1], [1, 1, 1, 1, 1, 0]]
    np.testing.assert_array_equal(space.features(archs), expected)


def test_the_largest_and_the_smallest_architecture():
    assert NESTED.decode(NESTED.smallest()) == {"depth": 1, "alone": 5, "resolution": 160}
    largest = {"depth": 3, "inner": 2, "kind": "pool", "width": 32, "alone": 5, "kernel": 5, "resolution": 224}
    assert NESTED.decode(NESTED.largest()) == largest


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"depht": 1}, "unknown gene 'depht'; allowed: depth, inner, kind"),
        ({"depth": 4, "alone": 5, "resolution": 160}, "gene 'depth' cannot be 4; allowed: 1, 2, 3"),
        ({"depth": 2, "alone": 5, "resolution": 160}, "gene 'inner' is missing; allowed: 0, 1, 2"),
        ({"depth": 1, "alone": 5}, "gene 'resolution' is missing; allowed: 160, 224"),
    ],
)
def test_encode_says_what_is_wrong_and_what_is_allowed(choices, message):
    with pytest.raises(ValueError, match=message):
        NESTED.encode(choices)


def test_encode_ignores_genes_that_do_not_exist():
    base = {"depth": 1, "alone": 5, "resolution": 224}
    np.testing.assert_array_equal(NESTED.encode(base | {"kernel": 5, "width": 32}), NESTED.encode(base))


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ((Gene("a", (1,)), Gene("a", (2,))), "two genes are named 'a'"),
        ((Gene("a", (1,), ("b", 1)), Gene("b", (1,))), "gene 'a' needs 'b', which must be a gene listed before it"),
        ((Gene("a", ("x",)), Gene("b", (1,), ("a", 1))), "gene 'b' needs 'a', whose options must be numbers"),
    ],
)
def test_invalid_spaces_are_refused(genes, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(genes)


def unchecked_gene(options):
    """A gene as its constructor makes it outside tests, where that checks no types before."""
    gene = object.__new__(Gene)
    for name, value in {"name": "a", "options": options, "needs": None, "host": False}.items():
        object.__setattr__(gene, name, value)
    gene.__post_init__()
    return gene


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "has no options"),
        ((1, 1), "has a repeated option"),
        ((3, "3"), "has a repeated option"),
        ((True, 1), "has a repeated option"),
        ((2, 1), "must be in ascending order"),
        (([3, 3], [5, 5]), r"cannot have the option \[3, 3\]: options are numbers .*words such as '3x3'"),
        (((3, 3), (5, 5)), r"cannot have the option \(3, 3\)"),
        (("relu", None), "cannot have the option None"),
        (("", "relu"), "cannot have the option ''"),
        ((1.0, float("nan")), "cannot have the option nan"),
        ((1, float("inf")), "cannot have the option inf"),
        ((1, 10**400), "cannot have the option 10000"),
    ],
)
def test_invalid_genes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unchecked_gene(options)


@pytest.mark.parametrize("options", [(True, False), ("relu", "gelu"), ("3x3", 5, 2.5, False)])
def test_booleans_and_words_are_categories_in_any_order(options):
    space = SearchSpace((Gene("a", options), Gene("d", (1, 2))))
    assert [space.decode(arch)["a"] for arch in space.all_architectures()[::2]] == list(options)
    assert [gene.ordered for gene in space.genes] == [False, True]
    assert space.features(space.all_architectures()).shape[1] == len(options) + 1
    with pytest.raises(ValueError, match="gene 'b' needs 'a', whose options must be numbers"):
        SearchSpace((*space.genes, Gene("b", (1,), ("a", 1))))


def test_options_of_numpy_are_plain_numbers():
    options = unchecked_gene((np.int64(1), np.float32(2.5))).options
    assert options == (1, 2.5) and [type(option) for option in options] == [int, float]


def test_nothing_is_broadcast_by_rank():
    archs = NESTED.sample(jax.random.key(0), 7)
    with jax.numpy_rank_promotion("raise"):
        NESTED.canonical(archs)
        NESTED.sample(jax.random.key(0), 7)
        NESTED.mutate(jax.random.key(0), archs, 0.5)
        NESTED.features(archs)
        duplicates(archs)
