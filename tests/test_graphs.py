"""Graphs of operations: equal functions are found, by evaluation with random operations; what mistakes are told."""

import csv
from itertools import product

import jax
import numpy as np
import pytest

from nasjax import supernets
from nasjax.algorithms import ALGORITHMS
from nasjax.cli.compose import configuration
from nasjax.errors import ConfigError
from nasjax.graphs import declare, function_keys, graph_features
from nasjax.predictors import Inputs, Ridge
from nasjax.searches.problem import search_problem
from nasjax.space import Gene, SearchSpace
from nasjax.tactics import Problem
from nasjax.tactics.ehvi import Ehvi

CELL = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
BENCH_201 = SearchSpace(tuple(Gene(f"edge_{to}_{start}", CELL) for start, to in EDGES))
WORDS = {"edges": "edge_TO_FROM", "zero": "none", "identity": "skip_connect"}
"""NAS-Bench-201 (arXiv:2001.00326)."""

PRIME = 2039


def space_of(**options):
    return SearchSpace(tuple(Gene(name, tuple(chosen)) for name, chosen in options.items()))


def random_tables(seed, names, variants):
    """A random function of numbers below PRIME for each operation and setting of its weights; all map 0, nothing, to 0."""
    tables = np.random.default_rng(seed).integers(1, PRIME, (len(names), variants, PRIME))
    tables[:, :, 0] = 0
    return dict(zip(names, tables, strict=True))


def by_evaluation(archs, genes, evaluate, variants=2):
    """A class for each architecture: the outputs of `evaluate(arch, weights)` for all settings of every gene's weights."""
    settings = np.array(list(product(range(variants), repeat=genes)))
    outputs = [np.sort(evaluate(arch, settings)) for arch in archs]
    return np.unique(outputs, axis=0, return_inverse=True)[1].ravel()


def same_partition(one, other):
    pairs = np.unique(np.stack([one, other], 1), axis=0)
    return len(pairs) == len(np.unique(one)) == len(np.unique(other))


TABLES = random_tables(0, (*CELL[2:], "conv", "pool", "gat", "gcn", "concatenation"), 3)


def bench_201(arch, settings):
    """The output of a cell, edge by edge."""
    nodes = [np.full(len(settings), 17)]
    for node in (1, 2, 3):
        total = np.zeros(len(settings), int)
        for gene, (start, to) in enumerate(EDGES):
            if to == node and CELL[arch[gene]] != "none":
                value = nodes[start]
                total += value if CELL[arch[gene]] == "skip_connect" else TABLES[CELL[arch[gene]]][settings[:, gene], value]
        nodes.append(total % PRIME)
    return nodes[3]


def published_string(arch):
    """NAS-Bench-201's name of a cell up to isomorphism: it counts zeros, and unrolls what is used twice."""
    nodes = ["0"]
    for node in (1, 2, 3):
        terms = []
        for gene, (start, to) in enumerate(EDGES):
            if to == node:
                cut = CELL[arch[gene]] == "none" or nodes[start] == "#"
                named = nodes[start] if CELL[arch[gene]] == "skip_connect" else f"({nodes[start]})@{CELL[arch[gene]]}"
                terms.append("#" if cut else named)
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


def test_nas_bench_201_has_5425_functions_among_its_6466_published_ones():
    """The published figure counts cells as different that differ in the number of zeros alone."""
    archs = BENCH_201.all_architectures()
    keys = np.unique(function_keys(declare(BENCH_201, WORDS), archs), return_inverse=True)[1]
    published = np.unique([published_string(arch) for arch in archs], return_inverse=True)[1]
    assert (keys.max() + 1, published.max() + 1) == (5425, 6466)
    some = np.random.default_rng(0).choice(len(archs), 3000, replace=False)
    assert same_partition(keys[some], by_evaluation(archs[some], 6, bench_201))


BENCH_101 = SearchSpace(
    tuple(Gene(f"e{to}_{start}", (0, 1)) for to in (1, 2, 3, 4) for start in range(to))
    + tuple(Gene(f"op{to}", ("conv", "pool")) for to in (1, 2, 3))
)
"""Edges that are there or not, and operations of the nodes between input and output (arXiv:1902.09635)."""

GNN = SearchSpace(
    tuple(Gene(f"link_{to}", tuple(range(to))) for to in (1, 2, 3, 4))
    + tuple(Gene(f"op_{to}", ("gat", "gcn", "identity")) for to in (1, 2, 3, 4))
)
"""Nodes that read one node each; those that are read by none are concatenated (arXiv:2206.09166)."""


def bench_101(arch, settings):
    chosen = BENCH_101.decode(arch)
    nodes = [np.full(len(settings), 17)]
    for node in (1, 2, 3, 4):
        total = sum(chosen[f"e{node}_{start}"] * nodes[start] for start in range(node)) % PRIME
        nodes.append(TABLES[chosen[f"op{node}"]][settings[:, node - 1], total] if node < 4 else total)
    return nodes[4]


def gnn(arch, settings):
    chosen = GNN.decode(arch)
    nodes = [np.full(len(settings), 17)]
    for node in (1, 2, 3, 4):
        value, word = nodes[chosen[f"link_{node}"]], chosen[f"op_{node}"]
        nodes.append(value if word == "identity" else TABLES[word][settings[:, node - 1], value])
    read = {chosen[f"link_{node}"] for node in (1, 2, 3, 4)}
    return sum(TABLES["concatenation"][0, nodes[node]] for node in (1, 2, 3, 4) if node not in read) % PRIME


SPACES = {
    "edges": (BENCH_201, WORDS, 6, bench_201, 2),
    "edges and nodes": (BENCH_101, {"edges": "eTO_FROM", "nodes": "opTO", "zero": 0, "identity": 1}, 3, bench_101, 3),
    "links and nodes": (GNN, {"links": "link_TO", "nodes": "op_TO", "identity": "identity"}, 4, gnn, 2),
}


def some(space, number=1500):
    archs = space.all_architectures()
    return archs[np.sort(np.random.default_rng(0).choice(len(archs), min(number, len(archs)), replace=False))]


@pytest.mark.parametrize("name", SPACES)
def test_keys_are_equal_exactly_where_random_operations_compute_the_same(name):
    space, words, weighted, evaluate, variants = SPACES[name]
    archs = some(space)
    keys = function_keys(declare(space, words), archs)
    classes = by_evaluation(archs, weighted, evaluate, variants)
    assert same_partition(keys, classes)
    assert len(np.unique(classes)) < 0.9 * len(archs)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", ["paths", "weisfeiler_lehman"])
def test_features_are_equal_for_equal_functions_and_tell_nearly_all_others_apart(name, kind):
    space, words, *_ = SPACES[name]
    archs = some(space)
    graph = declare(space, words | {"features": kind})
    with jax.numpy_dtype_promotion("strict"):
        features = np.concatenate(graph_features(graph, archs)[2:], axis=1)
    assert np.isfinite(features).all()
    first, which = np.unique(function_keys(graph, archs), return_index=True, return_inverse=True)[1:]
    np.testing.assert_array_equal(features[first[which.ravel()]], features)
    assert len(np.unique(features, axis=0)) > 0.8 * len(first)


def paths(arch):
    """The operations along every path of a cell of NAS-Bench-201 between input and output, identities left out."""
    found, ends = [], [(0, ())]
    while ends:
        node, words = ends.pop()
        if node == 3:
            found.append(tuple(word for word in words if word != "skip_connect"))
        ends += [
            (to, (*words, CELL[arch[gene]]))
            for gene, (start, to) in enumerate(EDGES)
            if start == node and CELL[arch[gene]] != "none"
        ]
    return found


def test_path_features_are_those_of_all_paths():
    graph, archs = declare(BENCH_201, WORDS), some(BENCH_201, 60)
    *_, shortest, longest, degrees = map(np.asarray, graph_features(graph, archs))
    subsets = [*({name} for name in graph.names), set(graph.names)]
    for arch, short, long, degree in zip(archs, shortest, longest, degrees, strict=True):
        walked = paths(arch)
        for subset, least, most in zip(subsets, short, long, strict=True):
            lengths = [len(path) for path in walked if set(path) <= subset]
            assert least == pytest.approx(1 / (1 + min(lengths)) if lengths else 0)
            assert most == max((sum(word in subset for word in path) for path in walked), default=0)
        assert degree[3] == walked.count(())


def test_counts_are_of_what_is_chosen_what_reaches_the_output_and_what_reads_the_input_too():
    graph = declare(BENCH_201, WORDS)
    dead = {"edge_1_0": "none", "edge_2_0": "nor_conv_3x3", "edge_2_1": "none"}
    arch = BENCH_201.encode(dead | {"edge_3_0": "skip_connect", "edge_3_1": "nor_conv_1x1", "edge_3_2": "none"})
    counted = [np.asarray(part)[0].tolist() for part in graph_features(graph, arch[None])[:3]]
    assert graph.names == ("avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
    assert counted == [[3, 1, 0, 1, 1], [2, 1, 0, 1, 0], [0, 0, 0]]


def test_what_a_zero_cuts_off_and_identities_do_not_count():
    graph = declare(BENCH_201, WORDS)

    def arch(**edges):
        return BENCH_201.encode({name: edges.get(name, "none") for name in BENCH_201.names})

    plain = arch(edge_3_0="nor_conv_3x3")
    dead_end = arch(edge_3_0="nor_conv_3x3", edge_1_0="nor_conv_1x1")
    no_start = arch(edge_3_0="nor_conv_3x3", edge_3_1="nor_conv_1x1")
    by_way = arch(edge_1_0="skip_connect", edge_2_1="nor_conv_3x3", edge_3_2="skip_connect")
    twice = arch(edge_1_0="nor_conv_3x3", edge_2_0="nor_conv_3x3", edge_3_1="nor_conv_1x1", edge_3_2="nor_conv_1x1")
    shared = arch(edge_1_0="nor_conv_3x3", edge_2_1="skip_connect", edge_3_1="nor_conv_1x1", edge_3_2="nor_conv_1x1")
    keys = function_keys(graph, np.stack([plain, dead_end, no_start, by_way, twice, shared, arch()]))
    assert len(set(keys[:4])) == 1 and len(set(keys[3:])) == 4


MISTAKES = {
    "no word": ({"edge": "edge_TO_FROM"}, "supernet.graph has no word 'edge'; allowed: edges, links, nodes, zero"),
    "nothing": ({"zero": "none"}, "supernet.graph needs edges=PATTERN"),
    "no placeholder": ({"edges": "edge_TO_0"}, "supernet.graph.edges=edge_TO_0 must have FROM in place of a node's number"),
    "no gene": ({"edges": "edges_TO_FROM"}, "supernet.graph.edges=edges_TO_FROM matches no gene; there are: edge_1_0"),
    "no option": (WORDS | {"zero": "nothing"}, "supernet.graph.zero=nothing is not an option of an operation: avg"),
    "both": (WORDS | {"identity": "none"}, "supernet.graph: option none cannot be zero and identity"),
    "two": (WORDS | {"nodes": {"edge_1_0": 1, "edge_2_0": 1}}, "'edge_1_0' and 'edge_2_0' are operations of one node, 1"),
    "downward": ({"edges": "edge_FROM_TO"}, "'edge_1_0' is an edge from node 1 to node 0; nodes must be numbered so that"),
    "output": (WORDS | {"output": "first"}, "supernet.graph.output must be one of last, unread, all, not 'first'"),
    "features": (WORDS | {"features": "path"}, "supernet.graph.features must be one of paths, weisfeiler_lehman"),
    "mapping": ({"edges": {"edge_1_0": "0>1"}}, "supernet.graph.edges.edge_1_0 must be FROM-TO, such as 0-2, not '0>1'"),
    "unknown gene": ({"edges": {"edge": "0-1"}}, "supernet.graph names 'edge', which is not a gene; there are: edge_1_0"),
    "no number": ({"links": "edge_TO_0"}, "option none of 'edge_1_0' must be the number of a node before node 1"),
    "input": ({"edges": {"edge_1_0": "0-1"}, "nodes": {"edge_2_0": 2}}, "'edge_2_0' is the operation of node 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(name):
    words, told = MISTAKES[name]
    with pytest.raises(ConfigError) as error:
        declare(BENCH_201, words)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_mapping_of_genes_declares_what_a_pattern_does():
    named = space_of(a=CELL, b=CELL, c=CELL)
    pattern = SearchSpace(tuple(Gene(name, CELL) for name in ("e_1_0", "e_2_0", "e_2_1")))
    one = declare(named, {"edges": {"a": "0-1", "b": "0-2", "c": "1-2"}, "zero": "none", "identity": "skip_connect"})
    other = declare(pattern, WORDS | {"edges": "e_TO_FROM"})
    assert one.edges == other.edges and one.names == other.names
    assert declare(named, {}) is None


def test_predictors_read_the_features_in_groups_by_kind_and_a_reduced_space_keeps_them():
    graph, archs = declare(BENCH_201, WORDS), some(BENCH_201, 200)
    plain, inputs = Inputs(BENCH_201), Inputs(BENCH_201, graph=graph)
    parts = graph_features(graph, archs)
    assert inputs.features(archs).shape == (200, len(inputs.feature_groups))
    assert (max(plain.feature_groups), max(inputs.feature_groups)) == (4, len(parts))
    kept = ((1, 2),) * 6
    reduced = SearchSpace(tuple(Gene(gene.name, CELL[1:3]) for gene in BENCH_201.genes))
    small = reduced.all_architectures()
    for one, other in zip(
        graph_features(graph.restricted(reduced, kept), small), graph_features(graph, small + 1), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_predictor_that_reads_the_graph_is_better_at_what_a_cell_computes():
    """Values by the longest path of convolutions, the number of pooled paths, and noise for each cell."""
    graph, archs = declare(BENCH_201, WORDS), some(BENCH_201, 400)
    longest = [max((sum("conv" in word for word in path) for path in paths(arch)), default=-2) for arch in archs]
    pooled = [sum("avg_pool_3x3" in path for path in paths(arch)) for arch in archs]
    values = np.array(longest) - 0.3 * np.array(pooled) + np.random.default_rng(0).normal(0, 0.05, len(archs))
    errors = {}
    for inputs in (Inputs(BENCH_201), Inputs(BENCH_201, graph=graph)):
        mean, _ = Ridge().predict(inputs, Ridge().fit(inputs, archs[:128], values[:128]), archs[128:])
        errors[inputs.graph is None] = np.abs(np.asarray(mean) - values[128:]).mean()
    assert errors[False] < 0.7 * errors[True]


def test_a_table_declares_its_graph_on_the_command_line(tmp_path):
    rows = [(*cell, index) for index, cell in enumerate(product(CELL, repeat=3))]
    path = tmp_path / "cells.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("edge_1_0", "edge_2_0", "edge_2_1", "ms"), *rows])
    words = [f"supernet.table={path}", "supernet.genes=[edge_*]", "supernet.graph.edges=edge_TO_FROM",
             "supernet.graph.zero=none", "supernet.graph.identity=skip_connect"]  # fmt: skip
    config = configuration("search", ["supernet=tabular", *words])["supernet"]
    net = supernets.create(**config)
    assert net.graph == declare(net.space, WORDS)
    assert search_problem(net, None).graph == net.graph
    mapped = configuration("search", ["supernet=tabular", *words[:2], "supernet.graph.edges.edge_1_0=0-1"])["supernet"]
    assert len(supernets.create(**mapped).graph.edges) == 1
    with pytest.raises(ConfigError, match="has no word 'edge'"):
        supernets.create("tabular", table=str(path), genes=("edge_*",), graph={"edge": "edge_TO_FROM"})


def test_a_search_starts_with_cells_of_different_functions():
    graph, unlimited = declare(BENCH_201, WORDS), ((-np.inf, np.inf),) * 2
    repeats = {}
    for inputs in (Inputs(BENCH_201), Inputs(BENCH_201, graph=graph)):
        problem = Problem(BENCH_201, 40, (None, None), ALGORITHMS["nsga2"](), Ridge(), np.ones(2), unlimited, inputs)
        asked = [Ehvi(start=20).ask(Ehvi().init(jax.random.key(seed), problem))[0] for seed in range(3)]
        repeats[inputs.graph is None] = sum(len(archs) - len(set(function_keys(graph, archs))) for archs in asked)
    assert repeats[True] > 3 and repeats[False] == 0
