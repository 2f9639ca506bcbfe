"""Super-networks from outside the package: a class of stages, and a function, as a user would write them."""

import csv
import fcntl
import json
import os
import signal
import sqlite3
import sys
import textwrap
import time
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from functools import partial

import jax.numpy as jnp
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


@pytest.mark.slow
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
    reasons = {key: row["failure"] for key, row in rows.items() if row["failure"]}
    assert reasons == {
        (5, 2): "raised RuntimeError: as if",
        (7, 2): "crashed: its process ended with exit code 3",
        (3, 4): "returned acc, not ms",
    }
    with closing(sqlite3.connect("run/archive.db")) as base:
        assert {reason for (reason,) in base.execute("select failure from measurements")} == {"", *reasons.values()}


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
        ({"evaluate": "__main__:mine"}, "is in the script that runs: pass the function itself"),
        ({"evaluate": 3}, "must be module:function or a function, not 3"),
        ({"evaluate": len, "workers": 2}, "builtins:len was given itself, and runs in this process"),
    ],
)
def test_mistakes_in_an_external_network_are_one_line(here, changes, words):
    (here / "mistaken.py").write_text(EXTERNAL)
    with pytest.raises(ValueError) as caught:
        external(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def of_function(function, **changes):
    """A network of one gene that is measured by a function object."""
    settings = {"genes": {"k": [1, 3, 5]}, "metrics": ("acc",)}
    return supernets.create("external", evaluate=function, **(settings | changes))


GOALS = {"objectives": ["max:acc"], "references": {"acc": 0}, "tactic": "random", "evaluations": 3}


@pytest.mark.slow
def test_a_function_object_is_searched_in_this_process(here, capfd):
    def measure(archs, best=0):
        if archs[0]["k"] == 3:
            raise KeyError("no such\nwidth")
        return [{"acc": best or arch["k"]} for arch in archs]

    assert nasjax.search(of_function(measure), **GOALS, run="run").metrics["acc"].tolist() == [5]
    assert nasjax.search(of_function(partial(measure, best=7)), **GOALS).metrics["acc"].tolist() == [7, 7]
    assert nasjax.search(of_function(lambda archs: [{"acc": 9}]), **GOALS).metrics["acc"].tolist() == [9, 9, 9]
    name = f"{__name__}:test_a_function_object_is_searched_in_this_process.<locals>.measure"
    assert f"nasjax: {name} raised KeyError: 'no such\\nwidth' (first at k=3)" in capfd.readouterr().err
    assert f"evaluate: {name}" in (here / "run/config.yaml").read_text()
    # The same file, the same function: the run is known again.
    assert nasjax.search(of_function(measure), **GOALS, run="run").metrics["acc"].tolist() == [5]


def test_a_function_whose_text_is_not_known_is_never_taken_for_another():
    made = {}
    exec("def typed(archs):\n    return [{'acc': 1}]", made)
    assert dict(of_function(made["typed"]).context) != dict(of_function(made["typed"]).context)


@pytest.mark.parametrize("value", [np.float32(2.5), np.array(2.5), Decimal("2.5"), jnp.asarray(2.5)])
def test_numbers_of_any_library_are_metrics(value):
    assert of_function(lambda archs: [{"acc": value}])(np.array([[0]]))["acc"].tolist() == [2.5]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([{"acc": "68%"}], "returned acc='68%', not a finite number"),
        ([{"acc": np.array([1.0, 2.0])}], "returned acc=array([1., 2.]), not a finite number"),
        ([{"acc": (68.0, 0.1)}], "returned acc=(68.0, 0.1), not a finite number"),
        ([{"acc": None}], "returned acc=None, not a finite number"),
        ([{"acc": float("inf")}], "returned acc=inf, not a finite number"),
        ([{"acc": 1j}], "returned acc=1j, not a finite number"),
        ([{"accuracy": 1.0}], "returned accuracy, not acc"),
        ([{}], "returned no metric, not acc"),
        ([68.0], "returned 68.0, not a dict of metrics"),
        ({"acc": 1.0}, "returned {'acc': 1.0}, not a list with one dict of metrics for each of 1 architectures"),
        ([{"acc": 1.0}] * 2, "not a list with one dict of metrics for each of 1 architectures"),
        (68.0, "returned 68.0, not a list with one dict of metrics for each of 1 architectures"),
    ],
)
def test_an_answer_that_is_no_number_is_shown_with_what_is_expected(capsys, answer, words):
    net = of_function(lambda archs: answer)
    assert not np.isfinite(net(np.array([[1]]))["acc"]).any() and words in net(np.array([[1]]))["failure"][0]
    assert capsys.readouterr().err.count(f"{words} (first at k=3)") == 1


WORKERS = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor

def double(k):
    return 2 * k

def pooled(archs):
    with multiprocessing.Pool(1) as pool, ProcessPoolExecutor(1) as other:
        return [{"acc": a + b} for a, b in zip(pool.map(double, [5]), other.map(double, [archs[0]["k"]]))]

def crashing(archs):
    if archs[0]["k"] == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return [{"acc": archs[0]["k"]}]
"""


def test_a_script_without_a_main_guard_searches_and_its_function_may_open_process_pools(here, monkeypatch):
    (here / "workers.py").write_text(WORKERS)
    (here / "script.py").write_text("open('imported', 'w')\n")
    script = sys.modules["__main__"]
    monkeypatch.setattr(script, "__spec__", None, raising=False)
    monkeypatch.setattr(script, "__file__", str(here / "script.py"), raising=False)
    assert of_function("workers:pooled")(np.array([[2]]))["acc"].tolist() == [20]
    assert not (here / "imported").exists()


@pytest.mark.slow
def test_a_crash_is_a_failed_evaluation_and_the_search_goes_on(here, capfd):
    (here / "workers.py").write_text(WORKERS)
    settings = ["supernet=external", "supernet.evaluate=workers:crashing", "supernet.genes.k=[1,3,5]"]
    goals = ["supernet.metrics=[acc]", "objectives=[max:acc]", "references.acc=0", "tactic=random", "evaluations=3"]
    assert main(["search", *settings, *goals, "run=run"]) == 0
    said = capfd.readouterr()
    reason = "crashed: its process was killed by SIGSEGV (first at k=3)"
    assert said.err.count(f"nasjax: workers:crashing {reason}") == 1
    assert f"1 evaluation failed: the function {reason}." in said.out
    with open("run/evaluations.csv") as file:
        assert {row["k"]: row["acc"] for row in csv.DictReader(file)} == {"1": "1.0", "3": "nan", "5": "5.0"}
    # The table of a run with failures is read as a table: the reasons are no metric.
    again = ["search", "supernet=tabular", "supernet.table=run/evaluations.csv", "supernet.genes=[k]"]
    assert main([*again, "objectives=[max:acc]", "tactic=random", "evaluations=2", "run=again"]) == 0


FORGETTING = """
import os

if os.path.exists("loaded"):
    os._exit(3)
open("loaded", "w").close()

def evaluate(archs):
    if archs[0]["k"] == 3:
        os._exit(4)
    return [{"acc": archs[0]["k"]}]
"""


def test_a_worker_that_cannot_be_started_again_fails_evaluations_and_the_next_one_is_tried(here, capfd):
    (here / "forgetting.py").write_text(FORGETTING)
    settings = {"genes": {"k": [1, 3, 5]}, "metrics": ["acc"]}
    net = supernets.create("external", evaluate="forgetting:evaluate", **settings)
    np.testing.assert_array_equal([net(np.array([[k]]))["acc"][0] for k in range(3)], [1.0, np.nan, np.nan])
    error = capfd.readouterr().err
    assert "crashed: its process ended with exit code 4 (first at k=3)" in error
    assert "cannot be imported again" in error and "ended with exit code 3 (first at k=5)" in error
    (here / "loaded").unlink()
    assert net(np.array([[2]]))["acc"][0] == 5.0


def test_an_exception_without_a_text_is_a_failed_evaluation(capfd):
    class Silent(Exception):
        def __str__(self):
            raise ValueError("no text")

    def evaluate(archs):
        raise Silent

    net = supernets.create("external", evaluate=evaluate, genes={"k": [1, 3]}, metrics=["acc"])
    assert np.isnan(net(np.array([[0]]))["acc"]).all()
    assert "raised Silent: its message cannot be shown" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os; os._exit(3)", "the process that imports it crashed: its process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "the process that imports it crashed: its process was killed by SIGKILL"),
        ("evaluate = 68", "supernet.evaluate=dying:evaluate is 68, not a function"),
        ("raise OSError(104, 'Connection reset by peer')", "importing 'dying' failed (ConnectionResetError"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_one_line_and_no_run_folder(here, capfd, text, words):
    (here / "dying.py").write_text(text)
    settings = ["supernet=external", "supernet.evaluate=dying:evaluate", "supernet.genes.k=[3,5]", "supernet.metrics=[acc]"]
    assert main(["search", *settings, "objectives=[max:acc]", "references.acc=0", "run=run"]) == 2
    error = capfd.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (here / "run").exists()


ENDLESS = """
import fcntl, subprocess, time

def evaluate(archs):
    held = open("held", "w")
    fcntl.flock(held, fcntl.LOCK_EX)  # Released when this process and the one that it starts have both ended.
    subprocess.Popen(["sleep", "1000"], pass_fds=[held.fileno()])
    open("started", "w").close()
    time.sleep(1000)
"""


@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_worker_of_a_killed_search_ends_with_it_and_all_that_it_started(here):
    (here / "endless.py").write_text(ENDLESS)
    search = os.fork()
    if not search:
        try:
            of_function("endless:evaluate")(np.array([[0]]))
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not (here / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(search, signal.SIGKILL)
    os.waitpid(search, 0)
    with open("held") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


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
    assert "'k' is the name of a gene and of a metric" in capfd.readouterr().err
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
