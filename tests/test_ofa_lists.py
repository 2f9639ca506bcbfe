"""Architectures as Once-for-All and DyNAS-T write them: lists into choices and back, and what lists cannot say."""

import numpy as np
import ofa_golden as ofa
import pytest

from nasjax import supernets
from nasjax.supernets.ofa.lists import from_ofa, to_ofa

MOBILENET, _, PROXYLESS, RESNET = ofa.NAMES
NAMES = (MOBILENET, PROXYLESS, RESNET)
ELASTIC = {"resolutions": (160, 192, 224)}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def net(name):
    return supernets.abstract(name)


@pytest.fixture(scope="module")
def elastic(name):
    return supernets.abstract(name, **ELASTIC)


def test_lists_turn_into_choices_and_back(name, net):
    for row in range(14):
        lists = ofa.lists(name, row)
        choices = from_ofa(net, lists)
        again = to_ofa(net, choices)
        assert {key: len(entries) for key, entries in again.items()} == {key: len(entries) for key, entries in lists.items()}
        assert from_ofa(net, again) == choices
        assert from_ofa(net, {key: np.array(entries) for key, entries in lists.items()}) == choices
        net.space.encode(choices)
    with pytest.raises(ValueError, match="list 'd' has 2 entries"):
        from_ofa(net, ofa.lists(name, 0) | {"d": [2, 2]})
    for wrong, words in ((17, "17"), (None, "None"), ("3", "'3'"), ([[3]] * 20, r"\[3\]"), (np.float32(17), "17")):
        with pytest.raises(ValueError, match=f"list 'e' (cannot hold .*{words}|has 20 entries)"):
            from_ofa(net, ofa.lists(name, 0) | {"e": wrong})


def test_the_resolution_is_said_where_it_is_a_gene(name, elastic):
    for row, size in enumerate((160, 192, 224)):
        lists = ofa.lists(name, row)
        choices = from_ofa(elastic, lists | {"r": [size]})
        assert choices["resolution"] == size and choices == from_ofa(elastic, lists | {"r": size})
        assert to_ofa(elastic, choices)["r"] == [size]
        assert from_ofa(elastic, to_ofa(elastic, choices)) == choices
    with pytest.raises(ValueError, match=r"the lists of an architecture are .*, r, not "):
        from_ofa(elastic, lists)
    with pytest.raises(ValueError, match="list 'r' cannot hold 200; allowed: 160, 192, 224"):
        from_ofa(elastic, lists | {"r": [200]})
    with pytest.raises(ValueError, match="list 'r' has 2 entries, 1 are needed"):
        from_ofa(elastic, lists | {"r": [160, 192]})


def test_without_the_gene_the_resolution_is_that_of_the_images(name, net):
    """As OFA's own dictionaries say it, with a `wid` that means nothing."""
    lists = ofa.lists(name, 2)
    assert from_ofa(net, lists | {"r": [224], "wid": None}) == from_ofa(net, lists)
    assert "r" not in to_ofa(net, from_ofa(net, lists))
    with pytest.raises(ValueError, match="list 'r' cannot hold 192; allowed: 224"):
        from_ofa(net, lists | {"r": [192]})
    with pytest.raises(ValueError, match=r"not .*wid"):
        from_ofa(net, lists | {"wid": 1})


def test_the_block_that_is_always_there_has_depth_one():
    net = supernets.abstract(PROXYLESS)
    lists = ofa.lists(PROXYLESS, 2)
    for wrong in (4, 99):
        with pytest.raises(ValueError, match=f"list 'd' cannot hold {wrong}; allowed: 1$"):
            from_ofa(net, lists | {"d": [4, 4, 4, 4, 4, wrong]})
    assert from_ofa(net, lists | {"d": 4}) == from_ofa(net, lists | {"d": [4, 4, 4, 4, 4, 1]})


def test_choices_that_are_no_sub_network_are_named(name, net):
    chosen = net.space.decode(net.space.largest())
    gene = net.space.names[-1]
    for change, words in ({gene: 9}, f"gene '{gene}' cannot be 9"), ({"colour": 3}, "unknown gene 'colour'"):
        with pytest.raises(ValueError, match=words):
            to_ofa(net, chosen | change)
    del chosen[gene]
    with pytest.raises(ValueError, match=f"gene '{gene}' is missing"):
        to_ofa(net, chosen)
