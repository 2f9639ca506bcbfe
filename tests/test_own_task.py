"""A task and a super-network as docs/own-task.md shows them go the whole way."""

import csv
import json
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

import nasjax
from nasjax.cli import main
from nasjax.evaluation import STRATEGIES

GIVEN = ["supernet=mytask:Perceptron", "task=mytask:regression"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request):
    """Where the documented code lies, and what `nasjax train` made of it."""
    text = (request.config.rootpath / "docs/own-task.md").read_text()
    code = textwrap.dedent(text.split("```python\n")[1].split("```")[0])
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    folder = tmp_path_factory.mktemp("own_task")
    (folder / "mytask.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        assert main(["train", *GIVEN, "trainer.epochs=300", "trainer.learning_rate=0.01", "run=trained"]) == 0
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_training_scores_by_the_task_s_metric(here):
    record = json.loads(Path("trained/record.json").read_text())
    assert record["metric"] == "rmse"
    assert 0 < record["scores"]["largest"]["validation"] < 0.3  # of a target whose deviation is .5


@pytest.mark.slow
def test_searches_by_every_strategy_agree_and_are_extracted(here, capsys):
    fronts = []
    for strategy in STRATEGIES:
        words = ["supernet.checkpoint=trained/supernet.safetensors", "objectives=[rmse,macs]", "tactic=random"]
        assert main(["search", *GIVEN, *words, "evaluations=6", f"evaluator={strategy}", f"run={strategy}"]) == 0
        with open(f"{strategy}/evaluations.csv") as file:
            fronts.append(
                np.array([[float(row[name]) for name in ("rmse", "rmse_se", "macs")] for row in csv.DictReader(file)])
            )
    for front in fronts[1:]:
        np.testing.assert_allclose(front, fronts[0], rtol=1e-5)
    assert main(["extract", "run=switch", "export=stablehlo", "out=net"]) == 0
    assert "rmse" in capsys.readouterr().out
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    again = jax.export.deserialize(bytearray(Path("net/network.stablehlo").read_bytes())).call(inputs)
    np.testing.assert_allclose(again, nasjax.load("net")(inputs), atol=1e-6)


@pytest.mark.slow
def test_its_latency_is_measured_and_tabled(here):
    words = ["hardware=cpu", "hardware.networks=6", "hardware.seconds=0.05", "out=latency.csv"]
    assert main(["latency", GIVEN[0], *words]) == 0
    assert len(Path("latency.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task=mytask:nothing"], "task=mytask:nothing: module 'mytask' has no 'nothing'"),
        (["task=mytask:Perceptron"], "cannot be created (TypeError"),
        (["task=digits"], "the task's images are 8 x 8 x 1, but the super-network reads 3"),
        (["task=mytask:regression", "task.arguments.size=3"], "cannot be created (TypeError"),
        (["task=mytask:regression", "objectives=[accuracy_top1]"], "cannot be measured here; allowed: rmse, macs"),
    ],
)
def test_mistakes_are_one_line(here, capsys, words, line):
    assert main(["search", GIVEN[0], *words, "evaluations=2", "run=never"]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and said.startswith("nasjax: ") and "Traceback" not in said
    assert not Path("never").exists()
