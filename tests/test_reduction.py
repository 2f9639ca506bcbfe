"""Space reduction: dropped options, conversion between the reduced and the full space, and searches of the reduced space."""

import csv
import json

import jax
import numpy as np
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.space import Gene, SearchSpace
from nasjax.tactics import PopDB, Reduced

SPACE = SearchSpace(
    (
        Gene("depth", (1, 2, 3)),
        Gene("kind", ("a", "b", "c")),
        *(Gene(f"width{i}", (2, 4, 6, 8), ("depth", i + 1)) for i in range(3)),
    )
)
PART = Reduced(SPACE, ((1, 2), (0, 2), (0, 3), (1,), (0, 1, 2, 3)))


def test_the_reduced_space_has_the_kept_options():
    assert [gene.options for gene in PART.space.genes] == [(2, 3), ("a", "c"), (2, 8), (4,), (2, 4, 6, 8)]
    assert PART.dropped() == {"depth": [1], "kind": ["b"], "width0": [4, 6], "width1": [2, 6, 8]}
    assert PART.space.size == 2 * 2 * (1 + 4)


def test_architectures_convert_to_the_full_space_and_back():
    part = PART.space.all_architectures()
    whole = PART.to_full(part)
    for one, other in zip(part, whole, strict=True):
        assert PART.space.decode(one) == SPACE.decode(other)
    np.testing.assert_array_equal(np.asarray(PART.to_full(jax.numpy.asarray(part))), whole)
    back, inside = PART.to_reduced(whole)
    assert inside.all()
    np.testing.assert_array_equal(back, part)
    everything = SPACE.all_architectures()
    _, inside = PART.to_reduced(everything)
    assert set(map(tuple, everything[inside].tolist())) == set(map(tuple, whole.tolist()))


def test_options_that_no_cluster_uses_are_dropped_and_no_gene_is_lost():
    rng = np.random.default_rng(0)
    one = np.tile(SPACE.encode({"depth": 3, "kind": "a", "width0": 2, "width1": 4, "width2": 8}), (60, 1))
    other = np.tile(SPACE.encode({"depth": 2, "kind": "c", "width0": 8, "width1": 4}), (60, 1))
    archs = rng.permutation(np.concatenate([one, other]))
    assert PopDB().kept_options(SPACE, archs) == ((1, 2), (0, 2), (0, 3), (1,), (3,))
    assert PopDB().kept_options(SPACE, other) == ((1,), (2,), (3,), (1,), (0, 1, 2, 3))


@pytest.mark.parametrize("warm", [False, True])
def test_a_reduced_search_stays_in_the_reduced_space_and_reports_what_was_dropped(tmp_path, warm, caplog):
    net = nasjax.supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    settings = {"objectives": ["max:acc", "min:cost"], "predictor": "ridge"}
    start = None
    if warm:
        start = tmp_path / "earlier"
        nasjax.search(net, tactic="random", evaluations=40, run=start, **settings)
    words = {"name": "popdb", "sample": 20, "predictions": 2000, "population": 40, "cluster": 3, "least": 0.2}
    every = dict(
        tactic={"name": "full", "population": 6}, space_reduction=words, evaluations=40, warm_start=start, **settings
    )
    caplog.set_level("INFO")
    nasjax.search(net, run=tmp_path / "run", **every)
    assert caplog.messages.count("popdb: reducing the search space …") == 1
    reduced = json.loads((tmp_path / "run" / "summary.json").read_text())["reduced"]
    assert reduced["dropped"] and int(reduced["size"]) < net.space.size
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 or len(rows) >= int(reduced["size"])
    for row in rows[0 if warm else 20 :]:
        for gene, options in reduced["dropped"].items():
            assert row[gene] not in map(str, options)
    # Stopped anywhere, it goes on as if it had not been.
    half = nasjax.searching(net, run=tmp_path / "half", **every)
    for _ in range(2):
        next(half)
    half.close()
    nasjax.search(net, run=tmp_path / "half", **every)
    assert (tmp_path / "half" / "pareto.csv").read_text() == (tmp_path / "run" / "pareto.csv").read_text()


@pytest.mark.parametrize(
    "tactic", ["concurrent", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "ehvi", "weaknas"))]
)
def test_a_table_with_holes_is_reduced_before_any_tactic(tmp_path, tactic):
    with open(write_table(tmp_path / "whole.csv")) as file:
        lines = file.read().splitlines()
    (tmp_path / "holes.csv").write_text("\n".join(lines[:1] + lines[1::2]) + "\n")
    net = nasjax.supernets.create("tabular", table=str(tmp_path / "holes.csv"), genes=GENES)
    words = {"name": "popdb", "sample": 12, "predictions": 500, "population": 20, "cluster": 3, "least": 0.45}
    tactic = {"name": tactic, **({"first": 6, "batch": 4} if tactic == "weaknas" else {})}
    nasjax.search(net, objectives=["max:acc", "min:cost"], predictor="ridge", tactic=tactic, space_reduction=words,
                  evaluations=20, run=tmp_path / "run")  # fmt: skip
    dropped = json.loads((tmp_path / "run" / "summary.json").read_text())["reduced"]["dropped"]
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 12
    for row in rows[12:]:
        assert not any(row[gene] in map(str, options) for gene, options in dropped.items())
    with (tmp_path / "run" / "predictors.csv").open() as file:
        fits = list(csv.DictReader(file))
    # The reduction's own predictors, fitted to the sample, come first.
    assert [(fit["step"], fit["objective"], fit["rows"]) for fit in fits[:2]] == [("-1", "acc", "12"), ("-1", "cost", "12")]


def test_a_sample_that_takes_the_whole_budget_is_refused(tmp_path):
    net = nasjax.supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    with pytest.raises(ValueError, match=r"space_reduction\.sample=100 of evaluations=60 leaves none for the tactic"):
        nasjax.search(net, objectives=["max:acc"], space_reduction="popdb", evaluations=60, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
