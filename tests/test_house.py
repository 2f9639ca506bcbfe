"""The walls of the house: which package may import which, which may touch the disk, how long a file may be."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "nasjax"

FLOORS = {
    "version": 0,
    "types": 0,
    "errors": 0,
    "words": 0,
    "registry": 1,
    "space": 1,
    "host": 1,
    "jax_defaults": 1,
    "program_cache": 2,
    "program_counts": 2,
    "boxes": 0,
    "sorting": 0,
    "pareto": 1,
    "function_worker": 2,
    "csv_reader": 2,
    "objectives": 2,
    "outline": 2,
    "graphs": 2,
    "generators": 2,
    "verbosity": 1,
    "jaxprs": 2,
    "runs": 3,
    "trackers": 4,
    "algorithms": 3,
    "predictors": 3,
    "supernets": 3,
    "tactics": 4,
    "tasks": 4,
    "export": 5,
    "evaluation": 5,
    "hardware": 6,
    "training": 7,
    "deploy": 7,
    "searches": 8,
    "report": 8,
    "progress": 9,
    "interface": 10,
    "cli": 10,
    "__main__": 11,
}
"""A package may import what lies on a lower floor, and what is its own; equal floors do not know each other."""

SEARCH = {"algorithms", "predictors", "tactics"}
NETWORKS = {"supernets", "tasks", "export", "evaluation", "training", "hardware", "deploy"}
"""Two columns that do not import each other; hardware may use predictors."""

HYDRA = {"cli"}
DISK = {
    "host",
    "program_cache",
    "program_counts",
    "csv_reader",
    "function_worker",
    "runs",
    "searches",
    "report",
    "trackers",
    "cli",
}
DISK |= NETWORKS - {"evaluation"}
"""Who may import Hydra, and who may touch the disk."""

LONGEST = 400


@cache
def imports():
    """(package, file, module imported) of every import, those inside functions too."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        package = relative.parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "nasjax" else [node.module]
            found += [(package, relative, name) for name in names]
    return found


def inner_imports():
    """(package, file, other package) of every import of another package of ours."""
    pairs = [(package, file, name.split(".")[1]) for package, file, name in imports() if name.startswith("nasjax.")]
    return [(package, file, other) for package, file, other in pairs if other not in (package, "conf")]


def test_imports_run_downward_and_neither_column_imports_the_other():
    packages = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert packages - {"__init__"} == set(FLOORS)
    upward = [f"{file} imports {other}" for package, file, other in inner_imports() if FLOORS[other] >= FLOORS[package]]
    across = [
        f"{file} imports {other}"
        for package, file, other in inner_imports()
        if (package in SEARCH and other in NETWORKS)
        or (package in NETWORKS and other in SEARCH and (package, other) != ("hardware", "predictors"))
    ]
    assert not upward + across


def test_every_text_file_is_opened_in_utf_8_whatever_the_locale():
    unsaid = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            said = {word.arg for word in node.keywords}
            modes = {"r", "w", "a", "x", "r+", "w+", "a+"}
            values = {word.value for word in node.args if isinstance(word, ast.Constant)}
            text = name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute)
            text = text or (name in ("open", "fdopen") and (values & modes or "newline" in said))
            text = text or said & {"text", "universal_newlines"}
            if text and "encoding" not in said:
                unsaid.append(f"{file.relative_to(PACKAGE)}, line {node.lineno}")
    assert not unsaid


def test_no_module_imports_itself_by_way_of_others():
    modules = {
        ".".join(("nasjax", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in PACKAGE.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph = {}
    for name, file in modules.items():
        wanted = set()
        tree = ast.parse(file.read_text())  # Of cli all imports count, of others those at the top.
        for node in ast.walk(tree) if name.startswith("nasjax.cli") else tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nasjax"):
                inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                wanted |= inside or {node.module}
        graph[name] = wanted & modules.keys() - {name}
    done: set[str] = set()

    def circle(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        found = next(filter(None, (circle(other, [*path, name]) for other in sorted(graph[name]))), None)
        done.add(name)
        return found

    assert [found for found in (circle(name, []) for name in sorted(graph)) if found] == []


def test_hydra_and_disk_stay_at_the_edges_and_files_are_short():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        package = relative.parts[0].removesuffix(".py")
        used = {name.split(".")[0] for _, other, name in imports() if other == relative}
        text = file.read_text()
        if package not in HYDRA and used & {"hydra", "omegaconf"}:
            wrong.append(f"{relative} imports Hydra")
        if package not in DISK and (used & {"os", "pathlib", "io", "sqlite3", "shutil", "tempfile"} or "open(" in text):
            wrong.append(f"{relative} touches the disk")
        if text.count("\n") > LONGEST:
            wrong.append(f"{relative} has more than {LONGEST} lines")
    assert not wrong
