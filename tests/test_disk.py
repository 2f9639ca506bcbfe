"""A full disk: one clear line, nothing half-written, and the run goes on once there is room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tables import GENES, write_table

from nasjax.cli import main

MOUNTED = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[1]}k", "tmpfs", "disk"], check=True)
os.chdir("disk")
failed = subprocess.run([sys.executable, "-m", "nasjax", *sys.argv[2:]]).returncode
subprocess.run(["mount", "-o", "remount,size=20m", "disk"], cwd="..", check=True)
done = subprocess.run([sys.executable, "-m", "nasjax", *sys.argv[2:]]).returncode
subprocess.run(["cp", "-r", "run", ".."], check=True)
print("codes:", failed, done)
"""
"""Searches on a disk of so many kB in a mount namespace of its own, makes room, searches again, copies the run out."""


@pytest.fixture
def own_mounts(tmp_path):
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-Urm"]
    try:
        subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", tmp_path / "disk"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    return command


def outcome(folder):
    lines = (folder / "evaluations.csv").read_bytes().splitlines()
    return [line.rpartition(b",")[0] for line in lines], (folder / "pareto.csv").read_bytes()


# Full at its very start, amid measurements, among the tables.
@pytest.mark.parametrize(
    "kilobytes", [pytest.param(4, marks=pytest.mark.slow), 60, pytest.param(140, marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_with_room(tmp_path, own_mounts, kilobytes):
    words = ["search", "supernet=tabular", f"supernet.table={write_table(tmp_path / 'table.csv')}", "run=run",
             f"supernet.genes=[{','.join(GENES)}]", "objectives=[max:acc,min:cost]", "tactic=random",
             "evaluations=400"]  # fmt: skip
    assert main([*words, f"run={tmp_path / 'whole'}"]) == 0
    command = [*own_mounts, sys.executable, "-c", MOUNTED, str(kilobytes), *words]
    known = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=known)
    assert "codes: 2 0" in done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith("nasjax:")]
    assert len(said) == 1
    assert said[0].startswith("nasjax: disk full while writing ")
    assert said[0].endswith(": make room; the same command with run=run goes on from what is stored")
    assert "Traceback" not in done.stderr
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert not [path for path in Path(tmp_path / "run").iterdir() if path.name.startswith(".") and path.name != ".lock"]
