"""Runs in another working directory, and runs that were moved together with their files or without them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tables import GENES, write_table

from nasjax.cli import main
from nasjax.deploy.from_run import select_networks
from nasjax.errors import ConfigError
from nasjax.runs.folder import read_settings, run_folder
from nasjax.runs.inputs import override_inputs

GOALS = ["objectives=[max:acc,min:cost]", "tactic=random"]


def table(path):
    return ["supernet=tabular", f"supernet.table={path}", f"supernet.genes=[{','.join(GENES)}]"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a table, a search as warm start, and a run that names these and its archive by relative paths."""
    (tmp_path / "project/data").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    write_table(Path("data/t.csv"))
    assert main(["search", *table("data/t.csv"), *GOALS, "evaluations=6", "run=earlier"]) == 0
    words = [*table("data/t.csv"), *GOALS, "warm_start=earlier", "archive=data/shared.db", "run=runs/a", "evaluations=8"]
    assert main(["search", *words]) == 0
    return tmp_path / "project"


def refusal(words, capsys):
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_configuration_has_absolute_paths_and_the_identity_digests(project):
    config = yaml.safe_load(Path("runs/a/config.yaml").read_text())
    paths = [config["supernet"]["table"], config["warm_start"], config["archive"]]
    assert paths == [str(project / name) for name in ("data/t.csv", "earlier", "data/shared.db")]
    files = json.loads(Path("runs/a/run.json").read_text())["files"]
    assert files["supernet.table"]["relative"] == "../../data/t.csv" and len(files["supernet.table"]["sha256"]) == 64
    assert files["archive"] == {"relative": "../../data/shared.db", "sha256": None}  # It changes while it is used.


def test_a_run_is_evaluated_and_resumed_from_another_folder_and_after_its_project_was_moved(project, monkeypatch, capsys):
    monkeypatch.chdir(project.parent / "elsewhere")
    assert main(["evaluate", f"run={project}/runs/a", "out=first.csv"]) == 0
    moved = project.rename(project.parent / "moved")
    write_table(Path("other.csv"), bad=range(9))
    (project / "data").mkdir(parents=True)
    shutil.copy("other.csv", project / "data/t.csv")  # Another project by now: its table is not the run's.
    assert main(["evaluate", f"run={moved}/runs/a", "out=second.csv"]) == 0
    assert Path("second.csv").read_text() == Path("first.csv").read_text()
    assert [len(select_networks(moved / "runs/a", "all")) > 0, read_settings(moved / "runs/a")["archive"]] == [
        True,
        str(moved / "data/shared.db"),
    ]
    before = Path(moved, "runs/a/evaluations.csv").read_text()
    words = [*table(f"{moved}/data/t.csv"), *GOALS, f"warm_start={moved}/earlier", f"archive={moved}/data/shared.db"]
    assert main(["search", *words, f"run={moved}/runs/a", "evaluations=12"]) == 0
    assert Path(moved, "runs/a/evaluations.csv").read_text().startswith(before)
    assert yaml.safe_load(Path(moved, "runs/a/config.yaml").read_text())["archive"] == f"{moved}/data/shared.db"


def test_files_are_compared_by_content_not_by_name(project, monkeypatch, capsys):
    shutil.copy("data/t.csv", "copy.csv")
    shutil.copytree("earlier", "same")
    words = [*GOALS, "archive=data/shared.db", "run=runs/a", "evaluations=8"]
    assert main(["search", *table("copy.csv"), *words, "warm_start=same/evaluations.csv"]) == 0
    other = Path("same/evaluations.csv").read_text().splitlines()
    Path("same/evaluations.csv").write_text("\n".join(other[:-1]) + "\n")
    said = refusal(["search", *table("copy.csv"), *words, "warm_start=same/evaluations.csv"], capsys)
    assert "started with another content of warm_start=" in said and "same/evaluations.csv" in said
    write_table(Path("copy.csv"), bad=[1])
    said = refusal(["search", *table("copy.csv"), *words, "warm_start=earlier"], capsys)
    assert "runs/a was started with another content of supernet.table; restore that file" in said
    said = refusal(["search", *table("data/t.csv"), *words, "warm_start=earlier", "archive=other.db"], capsys)
    assert f"was started with archive={project}/data/shared.db, not {project}/other.db" in said


def test_a_file_that_is_gone_is_named_with_the_override_for_its_new_place(project, capsys):
    os.rename("data/t.csv", "data/renamed.csv")
    said = refusal(["evaluate", "run=runs/a"], capsys)
    assert f"runs/a was made with supernet.table={project}/data/t.csv, which is not there: say supernet.table=PATH" in said
    assert main(["evaluate", "run=runs/a", "supernet.table=data/renamed.csv"]) == 0
    for words in (["evaluate", "run=runs/a", "seed=3"], ["extract", "run=runs/a", "seed=3"]):
        assert "has all settings: leave seed=3 out; only files that were moved can be named: supernet.table=PATH" in refusal(
            words, capsys
        )
    os.rename("data/shared.db", "shared.db")
    found = ["supernet.table=data/renamed.csv"]
    assert "its archive (archive=" in refusal(["extract", "run=runs/a", *found], capsys)
    assert "searched a table" in refusal(["extract", "run=runs/a", "archive=shared.db", *found], capsys)
    words = [*table("data/renamed.csv"), *GOALS, "warm_start=earlier", "archive=shared.db", "run=runs/a", "evaluations=9"]
    before = Path("runs/a/evaluations.csv").read_text()
    assert main(["search", *words]) == 0
    assert Path("runs/a/evaluations.csv").read_text().startswith(before)


def test_weights_and_data_are_found_again_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("old/weights.safetensors", "old/data.npz", "old/latency.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    settings = {
        "supernet": {"name": "digits", "checkpoint": "old/weights.safetensors"},
        "task": {"name": "arrays", "path": "old/data.npz"},
        "hardware": {"name": "csv", "file": "old/latency.csv"},
        "tactic": {"name": "random"},
        "evaluator": None,
        "evaluations": 5,
        "seed": 0,
        "archive": None,
    }
    with run_folder(Path("old/run"), settings, "context"):
        pass
    os.rename("old", "new")
    found = read_settings(Path("new/run"))
    assert [found["supernet"]["checkpoint"], found["task"]["path"], found["hardware"]["file"]] == [
        str(tmp_path / "new" / name) for name in ("weights.safetensors", "data.npz", "latency.csv")
    ]
    os.rename("new/data.npz", "new/digits.npz")
    with pytest.raises(ConfigError, match=r"task\.path=.*data\.npz, which is not there: say task\.path=PATH"):
        override_inputs(Path("new/run"), read_settings(Path("new/run")), [])
    settings["task"] = {"name": "arrays", "path": "new/digits.npz"}
    settings["supernet"] = {"name": "digits", "checkpoint": "new/weights.safetensors"}
    settings["hardware"] = {"name": "csv", "file": "new/latency.csv"}
    with run_folder(Path("new/run"), settings, "context"):
        pass
    Path("new/latency.csv").write_text("other")
    with pytest.raises(ConfigError, match=r"another content of hardware\.file="), run_folder(
        Path("new/run"), settings, "context"
    ):  # fmt: skip
        pass


@pytest.mark.slow
def test_a_network_is_extracted_after_its_project_was_moved(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.random((60, 8, 8, 1), np.float32), y=rng.integers(0, 10, 60))
    words = ["task=arrays", "task.path=data.npz", "task.classes=10", "tactic=random", "evaluations=2", "evaluator.batch=10"]
    assert main(["search", *words, "evaluator.calibration_examples=10", "run=run"]) == 0
    os.rename(tmp_path / "old", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    assert main(["extract", "run=new/run", "out=net"]) == 0
    assert (tmp_path / "net/network.safetensors").is_file()
