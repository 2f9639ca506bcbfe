"""A full disk: one clear line, nothing half-written, and the run can be resumed once there is space."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tables import GENES, write_table

from nasjax.cli import main

SCRIPT = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[1]}k", "tmpfs", "disk"], check=True)
os.chdir("disk")
failed = subprocess.run([sys.executable, "-m", "nasjax", *sys.argv[2:]]).returncode
subprocess.run(["mount", "-o", "remount,size=20m", "disk"], cwd="..", check=True)
done = subprocess.run([sys.executable, "-m", "nasjax", *sys.argv[2:]]).returncode
subprocess.run(["cp", "-r", "run", ".."], check=True)
print("codes:", failed, done)
"""
"""Searches on a disk of sys.argv[1] kB, enlarges the disk, searches again, and copies the run to a place outside."""


@pytest.fixture
def mount_namespace(tmp_path):
    """The start of a command that runs with mounts of its own; skips the test where that is not allowed."""
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-Urm"]
    try:
        subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", tmp_path / "disk"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    return command


def outcome(folder):
    """The tables of a run without the times."""
    lines = (folder / "evaluations.csv").read_bytes().splitlines()
    return [line.rpartition(b",")[0] for line in lines], (folder / "pareto.csv").read_bytes()


# Full at the start of the run, between measurements, while the tables are written.
@pytest.mark.parametrize(
    "kilobytes", [pytest.param(4, marks=pytest.mark.slow), 60, pytest.param(140, marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_line_and_the_run_resumes_when_there_is_space(tmp_path, mount_namespace, kilobytes):
    words = ["search", "supernet=tabular", f"supernet.table={write_table(tmp_path / 'table.csv')}", "run=run",
             f"supernet.genes=[{','.join(GENES)}]", "objectives=[max:acc,min:cost]", "tactic=random",
             "evaluations=400"]  # fmt: skip
    assert main([*words, f"run={tmp_path / 'whole'}"]) == 0
    command = [*mount_namespace, sys.executable, "-c", SCRIPT, str(kilobytes), *words]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert "codes: 2 0" in done.stdout
    messages = [line for line in done.stderr.splitlines() if line.startswith("nasjax:")]
    assert len(messages) == 1
    assert messages[0].startswith("nasjax: disk full while writing ")
    assert messages[0].endswith(": make room; the same command with run=run continues from what is stored")
    assert "Traceback" not in done.stderr
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert not [path for path in Path(tmp_path / "run").iterdir() if path.name.startswith(".") and path.name != ".lock"]
