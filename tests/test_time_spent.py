"""The parts of a search's time: they add up to the total, and compiling is in no other."""

import json
import subprocess
from threading import Thread, get_ident

import jax
import jax.numpy as jnp
import pytest
from tables import GENES, write_table

import nasjax
from nasjax.cli import main
from nasjax.errors import ConfigError
from nasjax.host import git_commit
from nasjax.searches import time_spent
from nasjax.searches.time_spent import TimeSpent


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what is added to it."""
    now = [100.0]
    monkeypatch.setattr(time_spent.time, "monotonic", lambda: now[0])
    return now


def test_parts_add_up_to_the_total_and_compiling_is_taken_out_of_them(clock, monkeypatch):
    here, other = get_ident(), -1
    compiled = {here: 5.0, other: 1.0}
    monkeypatch.setattr(time_spent, "_compiled", lambda: compiled)
    spent = TimeSpent()
    for part, took, compiling in (("tactic", 3.0, 0.0), ("evaluation", 10.0, 4.0), ("tactic", 2.0, 1.5), ("test", 1.0, 9.0)):
        with spent.on(part):
            clock[0] += took
            compiled[here] += compiling
            compiled[other] += 100.0  # What another thread compiles side by side takes no time of this one.
    clock[0] += 7.0
    with pytest.raises(KeyError), spent.on("archive"):
        clock[0] += 1.0
        raise KeyError
    seconds = spent.seconds()
    assert seconds == {"total": 24.0, "tactic": 3.5, "evaluation": 6.0, "test": 0.0, "archive": 1.0, "compiling": 6.5,
                       "other": 7.0}  # fmt: skip


def test_a_part_within_another_is_counted_once_and_other_threads_count_nothing(clock, monkeypatch):
    compiled = {get_ident(): 0.0}
    monkeypatch.setattr(time_spent, "_compiled", lambda: compiled)
    spent = TimeSpent()

    def fit():
        with spent.on("predictors"):
            clock[0] += 5.0
            compiled[get_ident()] = compiled.get(get_ident(), 0.0) + 2.0

    with spent.on("tactic"):
        clock[0] += 3.0
        fit()
        fit()
        compiled[get_ident()] += 1.0
    beside = Thread(target=fit)
    beside.start()
    beside.join()
    assert spent.seconds() == {"total": 18.0, "tactic": 2.0, "predictors": 6.0, "compiling": 5.0, "other": 5.0}


def test_what_jax_compiles_is_counted():
    before = time_spent._compiled()[get_ident()]
    jax.jit(lambda x: jnp.cumsum(x) * 3.25 + 17)(jnp.ones(13))
    assert time_spent._compiled()[get_ident()] > before


def test_a_search_says_where_its_time_went(tmp_path):
    net = nasjax.supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    goals = ["max:acc", "min:cost"]
    nasjax.search(net, objectives=goals, tactic="random", evaluations=8, run=tmp_path / "run")
    seconds = json.loads((tmp_path / "run" / "summary.json").read_text())["seconds"]
    assert {"total", "set-up", "tactic", "evaluation", "archive", "results", "compiling", "other"} <= seconds.keys()
    assert sum(seconds.values()) == pytest.approx(2 * seconds["total"]) and min(seconds.values()) >= 0


def test_the_command_counts_what_precedes_its_search(monkeypatch, tmp_path):
    counted = {}

    def searching(net, task, *, spent, hardware, **settings):
        counted.update(spent.seconds())
        raise ConfigError(f"searched with {hardware}")

    monkeypatch.setattr("nasjax.cli.search.profile_with_progress", lambda *_: "a profile")
    monkeypatch.setattr("nasjax.cli.search.searching", searching)
    words = ["hardware=cpu", "objectives=[accuracy_top1,latency]", f"run={tmp_path / 'run'}"]
    assert main(["search", *words]) == 2
    assert counted["set-up"] > 0 and counted["latency table"] > 0


def test_what_predictors_take_is_named(tmp_path):
    net = nasjax.supernets.create("tabular", table=write_table(tmp_path / "table.csv"), genes=GENES)
    settings = {"objectives": ["max:acc", "min:cost"], "predictor": "ridge", "evaluations": 18}
    nasjax.search(net, tactic={"name": "concurrent", "population": 6}, run=tmp_path / "run", **settings)
    seconds = json.loads((tmp_path / "run" / "summary.json").read_text())["seconds"]
    assert 0 < seconds["predictors"] < seconds["total"] and seconds["tactic"] > 0


def test_the_commit_is_that_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=True).stdout
    assert commit.startswith(git_commit()) and len(git_commit()) == 12
    (tmp_path / "file").write_text("two")
    assert git_commit() == commit[:12] + "+"
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
