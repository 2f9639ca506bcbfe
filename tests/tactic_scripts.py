"""The scripts of experiments/tactics as modules, which find each other where they lie, and the data that they read."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"

needs_tables = pytest.mark.skipif(not (DATA / "nb201-accuracy").is_dir(), reason="needs the tables")


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Of every test in a file that imports this."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "tactics"))


def load(name: str) -> ModuleType:
    """A script by its name."""
    return importlib.import_module(name)
