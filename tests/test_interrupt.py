"""Ctrl-C: the front so far, where to go on, and nothing measured is lost."""

import csv
import os
import subprocess
import sys

FUNCTION = """
import os, signal
from pathlib import Path

def evaluate(archs):
    done = Path("done.txt")
    answers = []
    for arch in archs:
        with done.open("a") as file:
            file.write(f"{arch['width']}\\n")
        if len(done.read_text().splitlines()) == 5 and not Path("pressed").exists():
            Path("pressed").touch()
            os.killpg(os.getpgid(os.getppid()), signal.SIGINT)  # As a terminal does, to the search's group.
        answers.append({"acc": 10.0 * arch["width"], "ms": float(arch["width"] ** 2)})
    return answers
"""


HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""Starts a command that hears Ctrl-C, even where these tests run in the background, whose processes ignore it."""


def test_ctrl_c_shows_the_front_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    words = [
        *("search", "supernet=external", "supernet.evaluate=mine:evaluate", "supernet.genes.width=[1,2,3,4,5,6,7,8]"),
        *("supernet.metrics=[acc,ms]", "objectives=[max:acc,min:ms]", "references.acc=0", "references.ms=99"),
        *("tactic=random", "evaluations=8", "run=mine"),
    ]

    def nasjax():
        command = [sys.executable, "-c", HEARING, sys.executable, "-m", "nasjax", *words]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, start_new_session=True, env=environment)

    stopped = nasjax()
    assert stopped.returncode == 130, stopped.stderr
    assert "Stopping: what was measured is stored" in stopped.stderr and "Traceback" not in stopped.stderr
    assert (
        "acc" in stopped.stdout and "of 8 evaluations; the same command with run=mine resumes the search." in stopped.stdout
    )
    measured = (tmp_path / "done.txt").read_text().split()
    with (tmp_path / "mine" / "evaluations.csv").open() as file:
        stored = [row["width"] for row in csv.DictReader(file)]
    assert stored == measured[: len(stored)] and 4 <= len(stored) <= 5
    assert f"{len(stored)} of 8 evaluations" in stopped.stdout

    resumed = nasjax()
    assert resumed.returncode == 0, resumed.stderr
    with (tmp_path / "mine" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["width"]) for row in rows) == list(range(1, 9)) and all(row["status"] == "ok" for row in rows)
    every = (tmp_path / "done.txt").read_text().split()
    assert len(every) <= 9  # none twice, but for the one that was under way
