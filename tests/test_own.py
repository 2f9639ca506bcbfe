"""Super-networks from outside the package: a class of stages, and a function, as a user would write them."""

import csv
import json
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

import nasjax
from nasjax import supernets
from nasjax.cli import main
from nasjax.searches.problem import search_problem

DOCUMENT = "docs/own-super-network.md"

EXTERNAL = '''
import os

def evaluate(archs):
    """Fails in all the ways that a function can but one: it always answers."""
    found = []
    for arch in archs:
        k, w = arch["k"], arch["w"]
        if (k, w) == (5, 2):
            raise RuntimeError("as if")
        if (k, w) == (7, 2):
            os._exit(3)
        if (k, w) == (3, 4):
            found.append({"acc": "high"})
        else:
            found.append({"acc": k + w, "ms": w})
    return found
'''


def code_of(document, heading):
    """The first block of code under a heading."""
    text = document.read_text()
    return textwrap.dedent(text[text.index(heading) :].split("```python\n")[1].split("```")[0])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, from which modules are imported, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_documented_class_goes_the_whole_way(here, request):
    code = code_of(request.config.rootpath / DOCUMENT, "## A class of stages")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (here / "mynet.py").write_text(code)
    assert main(["train", "supernet=mynet:MyNet", "trainer.epochs=1", "run=trained"]) == 0
    words = ["supernet=mynet:MyNet", "supernet.checkpoint=trained/supernet.safetensors", "evaluations=4", "tactic=random"]
    assert main(["search", *words, "run=run"]) == 0
    assert main(["extract", "run=run", "network=1"]) == 0
    net = nasjax.load("run/subnets/1")
    assert net.space.size == 1
    with open("run/evaluations.csv") as file:
        row = list(csv.DictReader(file))[1]
    choices = json.loads((here / "run/subnets/1/config.json").read_text())["choices"]
    assert {name: str(value) for name, value in choices.items()}.items() <= row.items()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nomodule:MyNet", "there is no module 'nomodule'"),
        ("mistakes:Missing", "module 'mistakes' has no 'Missing'"),
        ("mistakes:Wrong", "makes a Wrong, not a"),
        ("broken:Net", "importing 'broken' failed (SyntaxError"),
        ("raises:Net", "importing 'raises' failed (RuntimeError: no weights here)"),
    ],
)
def test_a_class_that_is_not_there_is_one_line(here, capsys, name, words):
    (here / "mistakes.py").write_text("class Wrong:\n    def __init__(self, rngs):\n        pass\n")
    (here / "broken.py").write_text("class Net(:\n")
    (here / "raises.py").write_text("raise RuntimeError('no weights here')\n")
    assert main(["search", f"supernet={name}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def external(**changes):
    settings = {"evaluate": "mistaken:evaluate", "genes": {"k": [3, 5, 7], "w": [1, 2, 4]}, "metrics": ("acc", "ms")}
    return supernets.create("external", **(settings | changes))


def test_a_function_measures_and_its_failures_are_nan(here):
    (here / "mistaken.py").write_text(EXTERNAL)
    net = external(workers=2)
    front = nasjax.search(
        net, objectives=["max:acc", "min:ms"], tactic="random", evaluations=9, references={"acc": 0, "ms": 9}, run="run"
    )
    with open("run/evaluations.csv") as file:
        rows = {(int(row["k"]), int(row["w"])): row for row in csv.DictReader(file)}
    assert len(rows) == 9
    failed = {key for key, row in rows.items() if row["status"] == "failed"}
    assert failed == {(5, 2), (7, 2), (3, 4)}
    for (k, w), row in rows.items():
        if (k, w) not in failed:
            assert (float(row["acc"]), float(row["ms"])) == (k + w, w)
    assert {tuple(network.values()) for network in front.networks()} == {(7, 1), (7, 4)}


SLEEPING = """
import time

def evaluate(archs):
    if archs[0]["k"] == 5:
        time.sleep(1000)
    return [{"acc": 1.0}]
"""


def test_a_function_that_does_not_answer_in_time_is_ended_and_the_next_one_answers(here, capfd):
    (here / "sleeping.py").write_text(SLEEPING)
    net = external(evaluate="sleeping:evaluate", genes={"k": [3, 5]}, metrics=("acc",))
    patient = net._config
    assert net(np.array([[0]]))["acc"] == 1  # The process has started: only its answer is waited for.
    net._config = replace(patient, timeout=0.2)
    assert np.isnan(net(np.array([[1]]))["acc"])
    assert "sleeping:evaluate took longer than supernet.timeout" in capfd.readouterr().err
    net._config = patient
    assert net(np.array([[0]]))["acc"] == 1


def test_answers_come_back_in_order_whatever_the_batches(here):
    (here / "plain.py").write_text("def evaluate(archs):\n    return [{'acc': 10 * a['k'] + a['w']} for a in archs]\n")
    net = external(evaluate="plain:evaluate", metrics=("acc",), batch=2, workers=2)
    archs = net.space.all_architectures()[[8, 0, 4]]
    assert net(archs)["acc"].tolist() == [74.0, 31.0, 52.0]
    assert net(archs[:1])["acc"].tolist() == [74.0]


def test_genes_may_need_others(here):
    (here / "plain.py").write_text("def evaluate(archs):\n    return [{'acc': len(a)} for a in archs]\n")
    net = external(evaluate="plain:evaluate", metrics=("acc",), genes={"d": [1, 2], "k": [3, 5]}, needs={"k": "d>=2"})
    assert net.space.size == 3
    assert net(net.space.smallest()[None])["acc"].tolist() == [1.0]
    with pytest.raises(ValueError, match="is not of the form gene>=number"):
        external(evaluate="plain:evaluate", metrics=("acc",), needs={"w": "k>two"})


def test_a_changed_function_is_another_context(here):
    (here / "changing.py").write_text("def evaluate(archs):\n    return [{'acc': 1}]\n")
    before = dict(external(evaluate="changing:evaluate").context)
    (here / "changing.py").write_text("def evaluate(archs):\n    return [{'acc': 2}]\n")
    assert dict(external(evaluate="changing:evaluate").context) != before


def test_the_worst_value_of_an_unknown_metric_must_be_said(here):
    (here / "plain.py").write_text("def evaluate(archs):\n    return [{'acc': 1}]\n")
    with pytest.raises(ValueError, match=r"set references\.acc=NUMBER"):
        nasjax.search(external(evaluate="plain:evaluate", metrics=("acc",)), objectives=["max:acc"])
    assert search_problem(external(evaluate="plain:evaluate", metrics=("acc",)), None).repair is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluate": None}, "needs supernet.evaluate=module:function"),
        ({"metrics": ()}, "supernet.metrics"),
        ({"workers": 0}, "supernet.workers must be above 0"),
        ({"genes": {"k": 3}}, "must be a list of options"),
        ({"evaluate": "nowhere:f"}, "there is no module 'nowhere'"),
        ({"evaluate": "json"}, "is not of the form module:name"),
    ],
)
def test_mistakes_in_an_external_network_are_one_line(here, changes, words):
    (here / "mistaken.py").write_text(EXTERNAL)
    with pytest.raises(ValueError) as caught:
        external(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


TAKEN = """
class Net:
    def __init__(self, classes=2, *, rngs):
        self.classes = int(classes)
"""


def test_arguments_that_a_class_does_not_take_are_one_line(here, capsys):
    (here / "taken.py").write_text(
        "class Net:\n    def __init__(self, classes=2, *, rngs):\n        self.classes = int(classes)\n"
    )
    for word, said in (("clases=3", "unexpected keyword argument 'clases'"), ("classes=abc", "invalid literal for int")):
        assert main(["search", "supernet=taken:Net", f"supernet.arguments.{word}"]) == 2
        error = capsys.readouterr().err
        assert "supernet=taken:Net cannot be made" in error and said in error and error.count("\n") == 1


ANSWERS = """
def evaluate(archs):
    return [{"accuracy": 1.0} if arch["k"] == 3 else 0.5 for arch in archs]
"""


def test_answers_that_are_not_the_metrics_stated_are_named_and_leave_exit_code_two(here, capfd):
    (here / "answers.py").write_text(ANSWERS)
    words = ["search", "supernet=external", "supernet.evaluate=answers:evaluate", "supernet.genes.k=[3,5]",
             "supernet.genes.depth=[1,2]", "supernet.genes.late=[3,5]", "supernet.needs.late=depth>=2",
             "objectives=[max:acc]",
             "references.acc=0", "tactic=random", "evaluations=6"]  # fmt: skip
    assert main([*words, "supernet.metrics=[acc]", "run=run"]) == 2
    said = capfd.readouterr().err
    assert "answers:evaluate returned accuracy, not acc" in said and "every evaluation failed" in said
    with open("run/evaluations.csv") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 6 and all((row["late"] == "") == (row["depth"] == "1") for row in found)
    assert main([*words, "supernet.metrics=[acc,k]", "run=other"]) == 2
    assert "names 'k', which is a gene or a column of evaluations.csv" in capfd.readouterr().err
    assert not (here / "other").exists()


def test_the_documented_torch_function(here, request):
    pytest.importorskip("torch")
    code = code_of(request.config.rootpath / DOCUMENT, "With PyTorch")
    (here / "withtorch.py").write_text(code)
    net = external(evaluate="withtorch:evaluate", genes={"width": [8, 32, 64]}, metrics=("acc", "weights"), workers=2)
    front = nasjax.search(
        net, objectives=["max:acc", "min:weights"], tactic="random", evaluations=3, references={"acc": 0, "weights": 999}
    )
    assert set(front.metrics["weights"]) <= {48.0, 192.0, 384.0} and (front.metrics["acc"] > 0).all()
