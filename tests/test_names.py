"""Names of genes and metrics: any works in every file and setting, or is refused before anything is measured."""

import csv
import sys

import pytest

import nasjax
from nasjax.cli import main
from nasjax.cli.compose import configuration
from nasjax.deploy.from_run import select_networks
from nasjax.errors import ConfigError
from nasjax.objectives import measurable, parse_constraint, parse_objective
from nasjax.report import read_run, write_report
from nasjax.searches.problem import search_problem

METRICS = ("val/acc", "val_acc (%)", 'it\'s "x", y', "a:b", "min:z", "Acc", "acc", "größe", "<b>&", "x<=y", "noise_se")
GENES = ("block1.depth", "k (size)", "act")
NETWORKS = {(d, k if d > 1 else "", act): 0.0 for d in (1, 2, 3) for k in (3, 5) for act in ("relu", "a, b")}
GOALS = {"objectives": ["max:val/acc", "min:val_acc (%)"], "constraints": ["a:b<=36", "x<=y>=20"],
         "tactic": "random"}  # fmt: skip


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def table(tmp_path):
    """Ten networks; metric k of network i is (i + 1.5) * (k + 1)."""
    rows = [[*genes, *((i + 1.5) * (k + 1) for k in range(len(METRICS)))] for i, genes in enumerate(NETWORKS)]
    return write(tmp_path / "table.csv", [*GENES, *METRICS], rows)


def test_any_name_goes_through_search_resumption_report_and_a_table_again(table, tmp_path):
    net = nasjax.supernets.create("tabular", table=table, genes=GENES)
    nasjax.search(net, **GOALS, evaluations=6, run=tmp_path / "run")
    front = nasjax.search(net, **GOALS, evaluations=12, run=tmp_path / "run")
    assert sorted(front.metrics["a:b"] / 4) == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]
    assert front.select("x<=y<=26", "block1.depth<=2").metrics["Acc"] == 15
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "val/acc" in page and "<b>&" not in page
    (chosen,) = select_networks(tmp_path / "run", "block1.depth<=2,k (size)>=5")
    assert chosen.metrics["Acc"] == 6.5 * 6 and read_run(tmp_path / "run").evaluations[chosen.index].genes["k (size)"] == "5"
    run = read_run(tmp_path / "run")
    assert len(run.evaluations) == 10 and len(run.front) == 7
    assert [run.front[0].metrics[name] for name in METRICS] == [8.5 * (k + 1) for k in range(len(METRICS))]
    again = nasjax.supernets.create("tabular", table=str(tmp_path / "run" / "evaluations.csv"), genes=GENES)
    assert again.metrics == METRICS and again.space == net.space
    found = nasjax.search(again, **GOALS, evaluations=12)
    assert found.networks() == front.networks() and found.hypervolume == front.hypervolume


def test_on_the_command_line_names_are_quoted_as_hydra_wants_values(table, tmp_path, capsys):
    words = ["search", "supernet=tabular", f"supernet.table={table}", "supernet.genes=[block1.depth,'k (size)',act]",
             "objectives=['max:val_acc (%)',min:val/acc]", "references.val_acc (%)=1", "references.val/acc=20",
             "constraints=[val/acc<=7.5]", "tactic=random", "evaluations=12", f"run={tmp_path / 'run'}"]  # fmt: skip
    assert main(words) == 0
    run = read_run(tmp_path / "run")
    assert [(goal.name, goal.reference) for goal in run.objectives] == [("val_acc (%)", 1), ("val/acc", 20)]
    assert run.front[0].metrics["val/acc"] == 7.5
    assert configuration("search", ['constraints=["it\'s, x<=2",a:b>=1]'])["constraints"] == ["it's, x<=2", "a:b>=1"]
    composed = configuration("search", ["supernet=external", "supernet.genes.block1.depth=[1,2]", "supernet.genes.k=[3]",
                                        "supernet.needs.k=block1.depth>=2", "supernet.needs.a.b=k>=2"])  # fmt: skip
    assert composed["supernet"]["genes"] == {"block1.depth": [1, 2], "k": [3]}
    assert composed["supernet"]["needs"] == {"k": "block1.depth>=2", "a.b": "k>=2"}


def test_a_direction_or_a_bound_is_split_off_where_it_can_be():
    allowed = measurable(dict.fromkeys(METRICS, (0.0, 1.0)))
    assert parse_objective("max:min:z", allowed).name == "min:z"
    assert parse_objective(" min: a:b ", allowed).name == "a:b"
    assert parse_constraint("x<=y <= 1e3", METRICS).name == "x<=y"


TAKEN = "evaluations.csv has a column of its own with that name"


@pytest.mark.parametrize("gene", ["step", "index", "source", "status", "count", "seconds", "acc_se"])
def test_a_gene_with_the_name_of_a_bookkeeping_column_is_refused_before_a_folder_is_made(gene, tmp_path):
    path = write(tmp_path / "table.csv", [gene, "acc"], [[1, 2], [2, 3]])
    net = nasjax.supernets.create("tabular", table=path, genes=[gene])
    with pytest.raises(ConfigError, match=f"gene '{gene}': {TAKEN}; rename the gene"):
        nasjax.search(net, objectives=["max:acc"], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (("seconds",), f"metric 'seconds': {TAKEN}"),
        (("acc", "acc_se"), f"metric 'acc_se': {TAKEN}"),
        (("acc", "k"), "'k' is the name of a gene and of a metric"),
    ],
)
def test_a_metric_of_a_function_cannot_have_a_taken_name(metrics, words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "named_metrics.py").write_text("def evaluate(archs):\n    return [{} for _ in archs]\n")
    net = nasjax.supernets.create("external", evaluate="named_metrics:evaluate", genes={"k": [3, 5]}, metrics=metrics)
    with pytest.raises(ConfigError, match=words):
        search_problem(net, None)


def test_bookkeeping_columns_of_any_table_are_no_metrics(tmp_path):
    path = write(tmp_path / "table.csv", ["index", "d", "acc", "acc_se", "seconds"], [[0, 1, 2, 0.1, 9], [1, 2, 3, 0.1, 9]])
    net = nasjax.supernets.create("tabular", table=path, genes=["d"])
    assert net.metrics == ("acc",)
    front = nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=2, run=tmp_path / "run")
    assert front.metrics["acc"] == 3 and read_run(tmp_path / "run").front[0].genes == {"d": "2"}
    with pytest.raises(ConfigError, match=r"column of its own with the name of column 'seconds': rename it"):
        nasjax.search(net, objectives=["min:seconds"])
