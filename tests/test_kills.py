"""Searches and trainings that are killed (`kill -9`) at random moments go on and end as uninterrupted ones.

Two hundred kills, about an hour on two cores: `KILLS=200 scripts/test --slow tests/test_kills.py -s`.
"""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tables import GENES, write_table

HERE = Path(__file__).parent
CONCURRENT = ["tactic=concurrent", "predictor=ridge", "tactic.generations=20"]
DIGITS = ["evaluations=24", "tactic=concurrent", "predictor=ridge", "tactic.population=6", "evaluator.chunk=3"]


class Warm:
    """Starts searches in `folder` from a process that has imported everything already."""

    def __init__(self, folder):
        known = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
        self._process = subprocess.Popen([sys.executable, HERE / "warm.py"], cwd=folder, env=known, text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self._line() == "ready"

    def _line(self):
        return self._process.stdout.readline().strip()

    def search(self, words, seconds=None, command="search"):
        """Runs a search, which is killed after `seconds`; returns whether it ended before."""
        return self.searches([words], {} if seconds is None else {0: seconds}, command)[0]

    def searches(self, several, kills, command="search"):
        """Runs searches at once; `kills` has the seconds after which one is killed, by its index, in order. Returns which
        of them ended themselves."""
        self._process.stdin.write(json.dumps([[command, *words] for words in several]) + "\n")
        processes, began = self._line().split(), time.monotonic()
        for killed, seconds in kills.items():
            if not select.select([self._process.stdout], [], [], max(0, began + seconds - time.monotonic()))[0]:
                with suppress(ProcessLookupError):  # It ended itself, before the others.
                    os.kill(int(processes[killed]), signal.SIGKILL)
        statuses = self._line().split()
        assert set(statuses) <= {"0", str(int(signal.SIGKILL))}, statuses
        return [status == "0" for status in statuses]

    def close(self):
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture
def warm(tmp_path):
    started = Warm(tmp_path)
    yield started
    started.close()


def outcome(folder):
    """The files of a run without their seconds: tables as bytes, the archive's rows."""
    lines = (folder / "evaluations.csv").read_bytes().splitlines()
    base = sqlite3.connect(folder / "archive.db")
    stored = [
        base.execute(f"select {columns} order by 1").fetchall()
        for columns in ("key, context, arch, metrics from measurements", "position, step, key, source from evaluations",
                        "* from contexts", "step, told from states", "* from claims")
    ]  # fmt: skip
    base.close()
    return [line.rpartition(b",")[0] for line in lines], (folder / "pareto.csv").read_bytes(), stored


KILLS = int(os.environ.get("KILLS", 20))
"""Kills of all tests together."""


def table(folder):
    """The settings of a search of a table."""
    return ["supernet=tabular", f"supernet.table={write_table(folder / 'table.csv')}", "objectives=[max:acc,min:cost]",
            f"supernet.genes=[{','.join(GENES)}]"]  # fmt: skip


SEARCHES = {
    "table": lambda folder: [*table(folder), "evaluations=40", *CONCURRENT, "tactic.population=8"],
    "default": lambda folder: [*table(folder), "evaluations=40"],
    "digits": lambda folder: DIGITS,
}
"""The settings of each search that is killed; by default a search has the tactic `ehvi` and a Gaussian process."""


@pytest.mark.slow
@pytest.mark.parametrize(("net", "kills"), [("table", KILLS // 2), ("default", KILLS // 4), ("digits", KILLS // 20)])
def test_a_search_killed_at_random_moments_ends_as_an_uninterrupted_one(tmp_path, warm, net, kills):
    words = SEARCHES[net](tmp_path)
    warm.search([*words, "run=first"])  # Compiles.
    rng = np.random.default_rng(0)
    killed = finished = 0
    while killed < kills:
        seed = f"seed={finished}"
        began = time.monotonic()
        assert warm.search([*words, seed, f"run=whole-{finished}"])
        whole = time.monotonic() - began
        while not warm.search([*words, seed, f"run=killed-{finished}"], rng.uniform(0, 1.3 * whole)):
            killed += 1
        folder = tmp_path / f"killed-{finished}"
        assert outcome(folder) == outcome(tmp_path / f"whole-{finished}"), finished
        assert not (folder / "archive.db.claims").exists()
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole-0").iterdir()}
        finished += 1
    print(f"{killed} kills, {finished} searches")


def values(folder):
    """What a run evaluated, in order, and its front; without sources and seconds, which other runs on its archive change."""
    rows = [line.split(b",") for line in (folder / "evaluations.csv").read_bytes().splitlines()]
    return [(*row[:3], *row[4:-1]) for row in rows], (folder / "pareto.csv").read_bytes()


@pytest.mark.slow
def test_two_of_six_searches_on_one_archive_are_killed_and_all_end_as_searches_alone(tmp_path, warm):
    words = [*table(tmp_path), "evaluations=30", *CONCURRENT, "tactic.population=8"]
    for seed in range(6):
        assert warm.search([*words, f"seed={seed}", f"run=alone-{seed}"])
    rng = np.random.default_rng(1)
    killed = rounds = 0
    seconds = None
    while killed < KILLS // 5:
        shared = [[*words, f"archive=shared-{rounds}.db", f"seed={seed}", f"run={rounds}-{seed}"] for seed in range(6)]
        began = time.monotonic()
        moments = [] if seconds is None else sorted(rng.uniform(0, seconds, 2))  # The first round shows how long one takes.
        ended = warm.searches(shared, dict(zip(rng.choice(6, 2, replace=False).tolist(), moments, strict=False)))
        seconds = seconds or time.monotonic() - began
        killed += ended.count(False)
        if not all(ended):
            assert all(warm.searches([shared[i] for i in range(6) if not ended[i]], {}))
        for seed in range(6):
            assert values(tmp_path / f"{rounds}-{seed}") == values(tmp_path / f"alone-{seed}"), (rounds, seed)
        assert not (tmp_path / f"shared-{rounds}.db.claims").exists()
        rounds += 1
    print(f"{killed} kills among six searches on one archive, {rounds} rounds")


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, warm):
    words = ["experiment=digits", "trainer.epochs=3", "supernet.checkpoint=null", "evaluator.calibration_examples=90"]
    assert warm.search([*words, "run=whole"], command="train")  # Compiles.
    began = time.monotonic()
    assert warm.search([*words, "run=again"], command="train")
    whole = time.monotonic() - began
    files = {name: (tmp_path / "whole" / name).read_bytes() for name in ("supernet.safetensors", "record.json")}
    rng = np.random.default_rng(2)
    killed = finished = 0
    while killed < KILLS // 4:
        while not warm.search([*words, f"run=killed-{finished}"], rng.uniform(0, whole), command="train"):
            killed += 1
        assert {name: (tmp_path / f"killed-{finished}" / name).read_bytes() for name in files} == files
        finished += 1
    print(f"{killed} kills, {finished} trainings")
