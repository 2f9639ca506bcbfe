"""Searches that are killed (`kill -9`) at random moments resume and end as uninterrupted ones."""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tables import GENES, write_table

HERE = Path(__file__).parent
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

    def search(self, words, seconds=None):
        """Runs a search, which is killed after `seconds`; returns whether it ended before."""
        self._process.stdin.write(json.dumps(["search", *words]) + "\n")
        search = int(self._line())
        if seconds is not None and not select.select([self._process.stdout], [], [], seconds)[0]:
            os.kill(search, signal.SIGKILL)
        status = int(self._line())
        assert status in (0, signal.SIGKILL), status
        return status == 0

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


@pytest.mark.slow
@pytest.mark.parametrize(("net", "kills"), [("table", 100), ("digits", 8)])
def test_a_search_killed_at_random_moments_ends_as_an_uninterrupted_one(tmp_path, warm, net, kills):
    table = ["supernet=tabular", f"supernet.table={write_table(tmp_path / 'table.csv')}", "objectives=[max:acc,min:cost]",
             f"supernet.genes=[{','.join(GENES)}]", "evaluations=40", "tactic=concurrent", "predictor=ridge",
             "tactic.population=8", "tactic.generations=20"]  # fmt: skip
    words = table if net == "table" else DIGITS
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
