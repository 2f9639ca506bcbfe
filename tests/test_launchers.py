"""Sweeps whose jobs run in other processes, by Hydra's launchers."""

import json
import subprocess
import sys

import pytest
from tables import GENES, write_table

from nasjax.cli import main
from nasjax.cli.multirun import finished
from nasjax.version import __version__

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


SWEEP = ["search", "-m", "supernet=tabular", "supernet.table=table.csv", f"supernet.genes=[{','.join(GENES)}]",
         "evaluations=9", "objectives=[max:acc,min:cost]", "tactic=random"]  # fmt: skip
"""Over the table in the current folder."""


@pytest.fixture
def here(tmp_path, monkeypatch, sweeps):
    """A folder with a table, the current one."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_run_elsewhere_a_failed_one_loses_no_other_and_done_ones_are_skipped(here, capsys, launcher):
    words = [f"hydra/launcher={launcher}", "seed=range(2)", "tactic.population=0,4"]
    words += ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    command = [sys.executable, "-m", "nasjax", *SWEEP, *words]
    first = subprocess.run(command, text=True, check=False, capture_output=True)
    assert first.returncode == 2, first.stderr
    assert "Done: 2 of 4 jobs" in first.stdout
    assert first.stderr.count("  multirun/seed=") == 2
    assert "tactic.population must be at least 1, not 0" in first.stderr
    assert "Traceback" not in first.stderr
    summaries = sorted((here / "multirun").glob("*/summary.json"))
    assert [json.loads(path.read_text())["evaluations"] for path in summaries] == [9, 9]
    times = [path.stat().st_mtime_ns for path in summaries]
    if launcher == "joblib":
        said = [line for line in first.stderr.splitlines() if "/9, hypervolume " in line]
        assert said
        assert all(line.startswith("seed=") for line in said)
        assert main([*SWEEP, "seed=range(2)", "tactic.population=0,4"]) == 2
        assert capsys.readouterr().out.count("is done already") == 2
        assert times == [path.stat().st_mtime_ns for path in summaries]


def test_a_finished_job_is_not_skipped_where_its_table_has_changed(here, capsys):
    assert main([*SWEEP, "seed=0,1"]) == 0
    assert "is done already" not in capsys.readouterr().out
    assert main([*SWEEP, "seed=0,1"]) == 0
    assert capsys.readouterr().out.count("is done already") == 2
    write_table(here / "table.csv", bad=[0])
    assert main([*SWEEP, "seed=0,1"]) == 2
    out, error = capsys.readouterr()
    assert out.count("is done already") == 0
    assert error.count("was started with another content of supernet.table; restore that file") == 4


def test_a_job_that_was_stopped_is_not_done(tmp_path):
    """`minutes` and Ctrl-C leave a summary too."""
    folder = tmp_path / "job"
    folder.mkdir()
    for complete in (False, True):
        (folder / "summary.json").write_text(json.dumps({"version": __version__, "complete": complete}))
        assert finished(folder / "summary.json", {"supernet": {}, "task": None}) == complete


EXTERNAL = """
def evaluate(archs):
    return [{"acc": 10.0 * arch["width"]} for arch in archs]
"""


@pytest.mark.slow
def test_functions_are_measured_in_jobs_of_joblib(tmp_path):
    (tmp_path / "mine.py").write_text(EXTERNAL)
    words = ["supernet=external", "supernet.evaluate=mine:evaluate", "supernet.genes.width=[1,2,3]",
             "supernet.metrics=[acc]",
             "objectives=[max:acc]", "references.acc=0", "tactic=random", "evaluations=3", "seed=0,1"]  # fmt: skip
    command = [sys.executable, "-m", "nasjax", "search", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *words]
    done = subprocess.run(command, cwd=tmp_path, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "Done: 2 of 2 jobs" in done.stdout
