"""What a folder holds of searches and trainings, also while they run: their state and progress. Nothing is written.

Searches that differ in their seed alone and were made by one command (`seeds=`) are one entry.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import parse_json, read_text
from nasjax.report.training import PAGE
from nasjax.runs.folder import (
    DAMAGED_CONFIG,
    SEEDS_CSV,
    SEEDS_JSON,
    STARTED,
    TRAINING_RECORD,
    flatten_settings,
    in_use,
    read_settings,
)
from nasjax.runs.reader import FILES, RUN_AGAIN, UNFINISHED, read_latest_summary
from nasjax.runs.seeds import read_seeds_state
from nasjax.training.watch import CURVES, read_curves

DEEPEST = 4
"""How many folders below the one that is watched a run may be: a sweep's is two below `multirun`'s parent."""

KIND_FILES = {
    "search": ("run.json", UNFINISHED, *FILES),
    "seeds": (SEEDS_JSON, SEEDS_CSV),
    "training": (STARTED, TRAINING_RECORD, CURVES, PAGE),
}
"""The files that tell how far a run of each kind is."""


@dataclass(frozen=True)
class Entry:
    """A search, searches with many seeds, or a training, in the folder that is watched.

    `name` is its path below that folder, `kind` search, seeds or training, `state` running, complete or stopped. `subject`
    says what was searched or trained on which task, `problem` with which settings, `method` by which tactic or trainer.
    `done` of `planned` evaluations, seeds or epochs were made in `seconds`; None where nothing is known. `damage` says which
    file cannot be read, and why. `version` changes whenever the state or a file does.
    """

    name: str
    folder: Path
    kind: str
    state: str
    version: str
    subject: str = ""
    method: str = ""
    done: int | None = None
    planned: int | None = None
    problem: str = ""
    objectives: tuple[str, ...] = ()
    hypervolume: float | None = None
    seconds: float | None = None
    damage: str = ""


def entries(root: Path) -> list[Entry]:
    """The searches and trainings in a folder and below: those that run first, then by name."""
    found = [_entry(root, *where) for where in _folders(root)]
    return sorted(found, key=lambda entry: (entry.state != "running", entry.name))


def _folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Run folders and their kinds: below `root`, not below each other, and not by way of links."""
    for place, inside, files in os.walk(root):
        folder = Path(place)
        if SEEDS_JSON in files:
            yield folder, "seeds"
        elif "run.json" in files or "summary.json" in files:
            yield folder, "search"
        elif STARTED in files or TRAINING_RECORD in files:
            yield folder, "training"
        elif len(folder.relative_to(root).parts) < DEEPEST:
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            continue
        inside.clear()


def _name(root: Path, folder: Path) -> str:
    return folder.name if folder == root else folder.relative_to(root).as_posix()


def _entry(root: Path, folder: Path, kind: str) -> Entry:
    running = in_use(folder)
    stamps = [(file, *_stamp(folder / file)) for file in KIND_FILES[kind]]
    version = sha256(repr((running, stamps)).encode()).hexdigest()[:16]
    return _read_entry(_name(root, folder), folder, kind, running, version)


def _stamp(file: Path) -> tuple[int, int]:
    """When a file was last written, and its size; zeros where there is none."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4096)
def _read_entry(name: str, folder: Path, kind: str, running: bool, version: str) -> Entry:
    """The entry of a folder; it is read anew where `version` has changed."""
    try:
        state, known = READERS[kind](folder)
        return Entry(name, folder, kind, "running" if running else state, version, **known)
    except (ConfigError, OSError) as error:  # A file is damaged, or the folder was removed meanwhile.
        return Entry(name, folder, kind, "running" if running else "stopped", version, damage=str(error))


def _search(folder: Path) -> tuple[str, dict[str, Any]]:
    """The state of a search that does not run, and what is known of it."""
    settings = read_settings(folder) if (folder / "config.yaml").is_file() else {}
    known: dict[str, Any] = {"planned": settings.get("evaluations"), "problem": _problem(settings)}
    if not any((folder / file).is_file() for file in ("summary.json", UNFINISHED)):
        return "stopped", known  # It began this moment, or an older version was killed.
    summary = read_latest_summary(folder)
    known |= {
        "subject": _subject(summary["supernet"], summary["task"]),
        "method": f"{summary['tactic']}, seed {summary['seed']}",
        "done": summary["evaluations"],
        "objectives": tuple(f"{objective['direction']}:{objective['name']}" for objective in summary["objectives"]),
        "hypervolume": float(summary["hypervolume"][-1]) if summary["hypervolume"] else None,
        "seconds": summary["seconds"].get("total"),
    }
    over = not (folder / UNFINISHED).is_file() and summary.get("complete", True)
    return "complete" if over else "stopped", known


def _seeds(folder: Path) -> tuple[str, dict[str, Any]]:
    """The same of searches with many seeds."""
    state = read_seeds_state(folder)
    with naming_damage(folder / "config.yaml", DAMAGED_CONFIG):
        known: dict[str, Any] = {
            "subject": _subject(state.settings["supernet"]["name"], (state.settings.get("task") or {}).get("name")),
            "method": state.settings["tactic"]["name"],
            "problem": _problem(state.settings),
        }
    known |= {"objectives": tuple(f"{objective.direction}:{objective.name}" for objective in state.objectives)}
    known |= {"done": state.done, "planned": state.planned, "seconds": state.seconds}
    return "complete" if state.done == state.planned else "stopped", known


def _training(folder: Path) -> tuple[str, dict[str, Any]]:
    """The same of a training."""
    over = (folder / TRAINING_RECORD).is_file() and not (folder / STARTED).is_file()
    file = folder / (TRAINING_RECORD if over else STARTED)
    rows, text = read_curves(folder / CURVES), read_text(file)
    with naming_damage(file, f"{RUN_AGAIN} with another run="):
        settings = parse_json(text)["settings"]
        known: dict[str, Any] = {
            "subject": _subject(str(settings.get("subnet") or settings["supernet"]["name"]), settings["task"]["name"]),
            "method": f"{settings['trainer']['name']}, seed {settings['seed']}",
            "planned": int(settings["trainer"]["epochs"]),
            "done": int(rows[-1]["epoch"]) if rows else None,
            "seconds": rows[-1]["seconds"] if rows else None,
        }
    return "complete" if over else "stopped", known


READERS: dict[str, Callable[[Path], tuple[str, dict[str, Any]]]] = {
    "search": _search,
    "seeds": _seeds,
    "training": _training,
}


def _problem(settings: Mapping[str, Any]) -> str:
    """The settings that searches have in common whose fronts can be compared, as text."""
    return repr(sorted(flatten_settings({key: settings.get(key) for key in ("supernet", "task")}).items()))


def _subject(name: str, task: str | None) -> str:
    return f"{name} on {task}" if task else name
