"""The walls of the house: which room may import which."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nasjax"

FLOORS = {
    "version": 0,
    "types": 0,
    "tables": 0,
    "space": 1,
    "pareto": 1,
    "algorithms": 2,
    "predictors": 2,
    "tactics": 3,
    "supernets": 2,
    "tasks": 2,
    "extract": 3,
    "outline": 3,
    "evaluation": 3,
    "training": 3,
    "hardware": 4,
    "export": 4,
    "architectures": 4,
    "latency": 5,
    "fastest": 5,
    "deliver": 5,
    "claims": 4,
    "objectives": 5,
    "archive": 5,
    "runs": 5,
    "subject": 6,
    "measure": 7,
    "results": 8,
    "loop": 9,
    "train": 9,
    "dynast": 5,
    "warm": 8,
    "evaluate": 9,
    "report": 9,
    "seeds": 10,
    "extract_run": 10,
    "cli": 11,
    "__main__": 12,
}
"""Rooms may import what lies on a lower floor, or their own; equal floors do not know each other, but for EQUALS."""

EQUALS = {("algorithms", "predictors"), ("evaluation", "extract"), ("training", "evaluation"), ("hardware", "export")}

SEARCH = {"algorithms", "predictors", "tactics"}
NETWORKS = {"supernets", "tasks", "extract", "export", "outline", "evaluation", "training", "hardware"}

HYDRA = {"cli"}
DISK = {"archive", "claims", "cli", "deliver", "dynast", "evaluate", "export", "extract", "extract_run", "warm"}
DISK |= {"architectures", "fastest", "hardware", "latency", "report", "runs", "supernets", "tasks", "train"}


def imports():
    """(room, file, module imported) of every import in the package, those inside functions too."""
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "nasjax" else [node.module]
            for name in names:
                yield room, relative, name


IMPORTS = sorted({(room, str(file), name) for room, file, name in imports()})
INNER = [
    (room, file, name.split(".")[1])
    for room, file, name in IMPORTS
    if name.startswith("nasjax.") and name.split(".")[1] not in (room, "conf")
]


def test_every_room_has_a_floor():
    rooms = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize(("room", "file", "other"), INNER)
def test_imports_run_downward(room, file, other):
    assert FLOORS[other] < FLOORS[room] or (room, other) in EQUALS, f"{file} imports {other}"


@pytest.mark.parametrize(("room", "file", "other"), INNER)
def test_neither_column_imports_the_other(room, file, other):
    assert not (room in SEARCH and other in NETWORKS), file
    assert not (room in NETWORKS and other in SEARCH and (room, other) != ("hardware", "predictors")), file


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_hydra_and_disk_stay_at_the_edges(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = {name.split(".")[0] for r, f, name in IMPORTS if f == str(file.relative_to(PACKAGE))}
    if room not in HYDRA:
        assert not used & {"hydra", "omegaconf"}
    if room not in DISK and room not in ("loop", "results"):
        assert not used & {"os", "pathlib", "io", "sqlite3", "shutil", "tempfile"}
    text = file.read_text()
    if room not in DISK:
        assert "open(" not in text
    assert text.count("\n") <= 400
