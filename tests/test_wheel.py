"""The wheel, installed away from the checkout; and what the shell asks for on TAB."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def completed(line, folder, environment=None):
    """What bash would offer after `line`, and the modules imported to find it."""
    (folder / "answer").unlink(missing_ok=True)
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "answer"),
             "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:", "COMP_LINE": line, "COMP_POINT": str(len(line)),
             "COMP_TYPE": "9", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}  # fmt: skip
    code = (
        "import os, sys\n"
        "leave = os._exit\n"
        "def ended(code):\n"
        "    print([m for m in ('jax', 'hydra', 'numpy') if m in sys.modules], file=sys.__stdout__, flush=True)\n"
        "    leave(code)\n"
        "os._exit = ended\n"
        "from nasjax.cli import main\n"
        "sys.argv[0] = 'nasjax'\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | asked | (environment or {}), check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout == "[]\n"
    return (folder / "answer").read_text().split("\n")


def test_the_shell_is_offered_commands_keys_names_and_files(tmp_path):
    (tmp_path / "networks.csv").touch()
    (tmp_path / "runs").mkdir()
    assert completed("nasjax ex", tmp_path) == ["extract"]
    assert completed("nasjax search tas", tmp_path) == ["task="]
    assert completed("nasjax search e", tmp_path) == ["evaluator=", "evaluations=", "experiment="]
    assert completed("nasjax train e", tmp_path) == ["evaluator=", "experiment="]
    # The shell takes what stands before the last `=` for a word of its own.
    assert completed("nasjax search tactic=", tmp_path) == [
        "concurrent",
        "ehvi",
        "full",
        "full_on_estimations",
        "proxy",
        "random",
        "weaknas",
    ]
    assert completed("nasjax search -m tactic=full,ra", tmp_path) == ["full,random"]
    assert completed("nasjax search supernet.table=ne", tmp_path) == ["networks.csv"]
    assert completed("nasjax extract run=r", tmp_path) == ["runs/"]
    assert completed("nasjax report ru", tmp_path) == ["runs/"]


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(tmp_path):
    for folder in ("nasjax", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / "source" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", "wheels", "./source"], cwd=tmp_path,
                   check=True)  # fmt: skip
    shutil.rmtree(tmp_path / "source")
    (wheel,) = (tmp_path / "wheels").glob("nasjax-*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", "installed", wheel], cwd=tmp_path, check=True)
    (tmp_path / "elsewhere").mkdir()
    there = {"PYTHONPATH": str(tmp_path / "installed")}

    def python(*words):
        return subprocess.run([sys.executable, *words], cwd=tmp_path / "elsewhere", env=os.environ | there, text=True,
                              capture_output=True, check=True).stdout  # fmt: skip

    places = python("-c", "import nasjax, nasjax.conf; print(nasjax.__file__, nasjax.conf.__file__)").split()
    assert all(place.startswith(str(tmp_path / "installed")) for place in places)
    assert "tactic=concurrent|ehvi|full|full_on_estimations|proxy|random|weaknas" in python(
        "-m", "nasjax", "search", "--help"
    )
    assert completed("nasjax search tactic=r", tmp_path / "elsewhere", there) == ["random"]
    assert "Report: smoke/report.html" in python("-m", "nasjax", "search", "debug=smoke", "run=smoke")
    assert json.loads((tmp_path / "elsewhere" / "smoke" / "summary.json").read_text())["evaluations"] == 12
    assert python("-m", "nasjax", "extract", "run=smoke").startswith("Network ")
