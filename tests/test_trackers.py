"""Trackers are told what the run folder says, once, also when a run is resumed; whatever they do, the search goes on."""

import csv
import json
import math
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest
import yaml
from tables import GENES, write_table
from tensorboardX.proto import event_pb2

import nasjax
from nasjax import supernets
from nasjax.cli import main
from nasjax.errors import ConfigError
from nasjax.progress import tracked
from nasjax.trackers import MLflow, Started, Tracker, Tracking, Trackio, Wandb

GOALS = ["max:acc", "min:cost"]
TACTIC = {"name": "random", "population": 6}
FILES = ["front.png", "hypervolume.png", "report.html"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "table.csv")


@pytest.fixture(scope="module")
def net(table):
    return supernets.create("tabular", table=table, genes=GENES)


def search(net, tracker, run, **more):
    return nasjax.search(
        net, objectives=GOALS, tactic=TACTIC, tracker=tracker, run=run, **{"evaluations": 18, "minutes": None} | more
    )


def words(table, *more):
    return ["supernet=tabular", f"supernet.table={table}", f"supernet.genes=[{','.join(GENES)}]",
            "objectives=[max:acc,min:cost]", "tactic=random", "tactic.population=6", "evaluations=12", *more]  # fmt: skip


RUNS: list["Stored"] = []
"""What `Told` has started in the present test."""

ERRORS = {"RuntimeError": RuntimeError, "SystemExit": SystemExit}


@pytest.fixture(autouse=True)
def nothing_told():
    RUNS.clear()


@dataclass(frozen=True)
class Told(Tracker):
    """A tracker that keeps in RUNS what it is told; `fails` names what raises the `error`."""

    project: str = "mine"
    fails: str = ""
    error: str = ""

    name = "told"

    def start(self, run):
        self.may_fail("start")
        RUNS.append(Stored(self, run, run.id or f"run {len(RUNS)}"))
        return RUNS[-1]

    def may_fail(self, what):
        if self.fails == what:
            raise ERRORS[self.error](f"{what} is\nout of order")


@dataclass
class Stored:
    tracker: Told
    started: Started
    id: str
    steps: list = field(default_factory=list)
    ended: list = field(default_factory=list)

    def log(self, step, metrics):
        self.tracker.may_fail("log")
        self.steps.append((step, dict(metrics)))

    def finish(self, tables, files, complete):
        self.tracker.may_fail("finish")
        self.ended.append((tables, files, complete))


def rows(file):
    with file.open() as opened:
        return list(csv.DictReader(opened))


def test_a_tracker_is_told_settings_values_and_results_of_the_run_folder(net, tmp_path):
    told, run = Told(), tmp_path / "run"
    front = search(net, told, run)
    (stored,) = RUNS
    assert stored.started.name == "run" and stored.started.settings["tactic.population"] == 6
    assert [step for step, _ in stored.steps] == [6, 12, 18]
    volumes = json.loads((run / "summary.json").read_text())["hypervolume"]
    table = rows(run / "evaluations.csv")
    for step, metrics in stored.steps:
        known = table[:step]
        assert metrics == pytest.approx({
            "evaluations": step, "failed": 0, "hypervolume": volumes[step - 1],
            "newest/acc": float(known[-1]["acc"]), "newest/cost": float(known[-1]["cost"]),
            "best/acc": max(float(row["acc"]) for row in known), "best/cost": min(float(row["cost"]) for row in known),
        })  # fmt: skip
    ((tables, files, complete),) = stored.ended
    assert complete and [file.name for file in files] == FILES
    header, lines = tables["front"]
    assert len(lines) == len(front) and header[: len(GENES) + 1] == ["index", *GENES]
    assert [str(line[0]) for line in lines] == [row["index"] for row in rows(run / "pareto.csv")]
    assert "tracker" not in yaml.safe_load((run / "config.yaml").read_text())


def test_a_value_that_is_missing_is_not_logged(tmp_path):
    bad = supernets.create("tabular", table=write_table(tmp_path / "bad.csv", bad=range(100)), genes=GENES)
    told = Told()
    search(bad, told, None)
    for _, metrics in RUNS[0].steps:
        assert all(map(math.isfinite, metrics.values())) and metrics["failed"] > 0
    assert RUNS[0].ended[0][1] == []  # Without a run folder there are no files.


def test_a_run_that_is_stopped_goes_on_in_the_same_tracked_run_without_a_step_twice(net, tmp_path):
    told, run = Told(), tmp_path / "run"
    with Tracking(told, run) as tracking:
        steps = tracked(nasjax.searching(net, objectives=GOALS, tactic=TACTIC, run=run, evaluations=18), tracking)
        next(steps)
        next(steps)
        steps.close()
    search(net, told, run)
    search(net, told, run, evaluations=24)
    search(net, told, run, evaluations=24)
    assert {stored.id for stored in RUNS} == {"run 0"}
    assert [step for stored in RUNS for step, _ in stored.steps] == [6, 12, 18, 24]
    other = Told(project="other")
    search(net, other, run, evaluations=30)
    assert [step for step, _ in RUNS[-1].steps] == [30] and RUNS[-1].started.id is None


def test_a_search_that_is_finished_is_shown_in_another_tracker_too(net, tmp_path):
    told, run = Told(), tmp_path / "run"
    front = search(net, "none", run)
    assert not (run / "tracker.json").exists()
    search(net, told, run)
    ((step, metrics),) = RUNS[0].steps
    assert step == 18 and metrics["hypervolume"] == pytest.approx(front.hypervolume)
    assert metrics["best/acc"] == pytest.approx(front.metrics["acc"].max())
    assert RUNS[0].started.settings["tactic.name"] == "random"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_the_search_goes_on(net, tmp_path, capsys, fails, error):
    front = search(net, Told(fails=fails, error=error), tmp_path / "run")
    assert len(front) and (tmp_path / "run" / "report.html").exists()
    said = capsys.readouterr().err
    assert said == f"nasjax: tracker=told failed ({error}: {fails} is out of order): nothing more is tracked\n"


def test_a_search_that_fails_or_is_interrupted_closes_its_tracked_run(net, tmp_path):
    told = Told()
    with pytest.raises(KeyboardInterrupt), Tracking(told, None) as tracking:
        tracking.log(1, {"loss": 2.0}, {})
        raise KeyboardInterrupt
    assert RUNS[0].ended == [({}, (), False)]


def test_damaged_marks_end_the_tracking_only(net, tmp_path, capsys):
    run = tmp_path / "run"
    search(net, Told(), run, evaluations=12)
    (run / "tracker.json").write_text('{"told": 3}')
    assert len(search(net, Told(), run))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "tracker.json is damaged" in said


def test_a_package_that_is_missing_is_told_before_anything_is_measured(table, net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasjax.trackers.base.find_spec", lambda package: None)
    for name in ("wandb", "mlflow", "trackio"):
        assert main(["search", *words(table, f"tracker={name}", "run=run")]) == 2
        assert main(["train", f"tracker={name}", "run=run"]) == 2
        line = f"nasjax: tracker={name} needs a package: pip install 'nasjax[{name}]'\n"
        assert capsys.readouterr().err == 2 * line
    with pytest.raises(ConfigError, match="tracker=tensorboard writes into the run folder"):
        search(net, "tensorboard", None)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_a_package_s_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    class Absent(Told):
        package = "no_such_tracker"

    with pytest.raises(ConfigError, match="needs a package"):
        Absent().check(None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tracker=foo", "unknown tracker 'foo'; allowed: mlflow, none, tensorboard, trackio, wandb"),
        ("tracker.project=a", "allowed in tracker: none; project is a setting of tracker=trackio|wandb|mlflow"),
        ("tracker=mlflow tracker.uri=here", "tracker.uri=here is not a store: say sqlite:///FILE.db, or a server's address"),
    ],
)
def test_mistakes_are_one_line(table, tmp_path, monkeypatch, capsys, given, said):
    monkeypatch.chdir(tmp_path)
    assert main(["search", *words(table, *given.split())]) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1


def test_jobs_of_a_sweep_are_the_same_under_any_tracker(table, tmp_path, monkeypatch, capsys, sweeps):
    monkeypatch.chdir(tmp_path)
    assert main(["search", "-m", *words(table, "seed=1,2", "tracker=tensorboard")]) == 0
    folders = sorted((tmp_path / "multirun").iterdir())
    assert all((folder / "tracker.json").is_file() for folder in folders)
    capsys.readouterr()
    assert main(["search", "-m", *words(table, "seed=1,2")]) == 0
    assert capsys.readouterr().out.count("is done already") == 2
    assert sorted((tmp_path / "multirun").iterdir()) == folders
    assert main(["search", "-m", *words(table, "tracker=none,tensorboard")]) == 2
    assert capsys.readouterr().err == "nasjax: tracker= cannot have several values with -m: a job is the same with any\n"


def events(folder):
    """(step, value) of every summary in the folder's files of events, in order."""
    found = []
    for file in sorted(folder.iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            size = int.from_bytes(content[place : place + 8], "little")
            event = event_pb2.Event.FromString(content[place + 12 : place + 12 + size])
            found += [(event.step, value) for value in event.summary.value]
            place += 16 + size
    return found


def test_tensorboard_has_curves_settings_front_and_figures(net, tmp_path):
    run = tmp_path / "run"
    search(net, "tensorboard", run, evaluations=12)
    search(net, "tensorboard", run)
    found = events(run / "events")
    volumes = json.loads((run / "summary.json").read_text())["hypervolume"]
    logged = [(step, value.simple_value) for step, value in found if value.tag == "hypervolume"]
    assert logged == [(step, pytest.approx(volumes[step - 1], rel=1e-6)) for step in (6, 12, 18)]
    texts = {value.tag.removesuffix("/text_summary"): value.tensor.string_val[0].decode() for _, value in found
             if value.tensor.string_val}  # fmt: skip
    assert "| tactic.population | 6 |" in texts["settings"] and texts["report.html"] == str(run / "report.html")
    assert texts["front"].count("\n") == 1 + len(rows(run / "pareto.csv"))
    assert {value.tag for _, value in found if value.image.height} == {"front_figure", "hypervolume_figure"}
    assert "_hparams_/session_start_info" in {value.tag for _, value in found}


def test_mlflow_has_them_in_its_database_and_goes_on_in_the_same_run(net, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    for evaluations in (12, 18):
        search(net, MLflow(project="mine"), "run", evaluations=evaluations)
    with closing(sqlite3.connect("mlflow.db")) as store:
        volumes = json.loads((tmp_path / "run" / "summary.json").read_text())["hypervolume"]
        logged = store.execute("select step, value from metrics where key = 'hypervolume' order by step").fetchall()
        assert logged == [(step, pytest.approx(volumes[step - 1])) for step in (6, 12, 18)]
        params = dict(store.execute("select key, value from params").fetchall())
        assert params["tactic.name"] == "random" and params["tactic.population"] == "6"
        assert store.execute("select name, status from runs").fetchall() == [("run", "FINISHED")]
        ((place,),) = store.execute("select artifact_uri from runs").fetchall()
    artefacts = {path.name: path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()}
    assert place.startswith("/") or "mlruns" in place
    assert set(artefacts) == {*FILES, "front.csv"}
    assert artefacts["report.html"].read_bytes() == (tmp_path / "run" / "report.html").read_bytes()
    assert [row["index"] for row in rows(artefacts["front.csv"])] == [
        row["index"] for row in rows(tmp_path / "run" / "pareto.csv")
    ]


def test_wandb_offline_has_them_in_the_run_folder(net, tmp_path, monkeypatch, capfd):
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    for evaluations in (12, 18):
        search(net, Wandb(project="mine"), "run", evaluations=evaluations)
    wandb.teardown()  # It writes in a process of its own, which then has ended.
    written = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in written}) == 1  # The name is the run's id.
    first, second = (file.read_bytes() for file in written)
    for content, steps in ((first, (6, 12)), (second, (18,))):
        assert content.count(b"newest/acc") >= len(steps) and b"tactic.population" in content
        assert b"report.html" in content and b"front_figure" in content
    tables = sorted((tmp_path / "run" / "wandb").rglob("front_*.table.json"))
    front = json.loads(tables[-1].read_text())
    assert [str(row[0]) for row in front["data"]] == [row["index"] for row in rows(tmp_path / "run" / "pareto.csv")]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ConfigError, match=r"tracker\.mode must be one of offline, online, not 'dryrun'"):
        search(net, replace(Wandb(), mode="dryrun"), "run")


@pytest.fixture
def trackio_folder(tmp_path_factory, monkeypatch):
    """Trackio reads the variable when it is imported first."""
    if "trackio" not in sys.modules:
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
    pytest.importorskip("trackio")
    from trackio.utils import TRACKIO_DIR

    return TRACKIO_DIR


def test_trackio_has_them_on_this_machine(net, tmp_path, trackio_folder, monkeypatch, capfd):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")  # Nothing is sent unless `space` says so.
    run = tmp_path / "run"
    for evaluations in (12, 18):
        search(net, Trackio(project="mine"), run, evaluations=evaluations)
    with closing(sqlite3.connect(trackio_folder / "mine.db")) as store:
        logged = [(step, json.loads(text)) for step, text in store.execute("select step, metrics from metrics order by id")]
        ((config,),) = store.execute("select config from configs").fetchall()
    volumes = json.loads((run / "summary.json").read_text())["hypervolume"]
    found = [(step, metrics["hypervolume"]) for step, metrics in logged if "hypervolume" in metrics]
    assert found == [(step, pytest.approx(volumes[step - 1])) for step in (6, 12, 18)]
    assert json.loads(config)["tactic.population"] == 6
    assert {"front", "front_figure", "hypervolume_figure"} <= {key for _, metrics in logged for key in metrics}
    reports = [path for path in (trackio_folder / "artifacts").rglob("*") if path.is_file()]
    assert (run / "report.html").read_bytes() in [path.read_bytes() for path in reports]
    assert capfd.readouterr().out == ""
