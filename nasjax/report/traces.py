"""What a comparison reads of each search: its settings, and the objectives of its evaluations in order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.host import parse_json, read_text
from nasjax.objectives import Objective
from nasjax.runs.folder import SEEDS_JSON, TRAINING_RECORD, flatten_settings, parse_settings
from nasjax.runs.reader import Run, read_run
from nasjax.runs.seeds import SeedsFolder, read_seeds

RESULTS = ("summary.json", SEEDS_JSON)
"""The files by one of which a folder is known to have finished searches."""


@dataclass(frozen=True, eq=False)
class Trace:
    """One search: `settings` by their dotted names, `values` the objectives minimised, NaN where an evaluation failed.

    The setting `evaluations` says "10 of 32" of a search that ended early. In place of weights that were trained here
    (`supernet.checkpoint`) are the settings of their training.
    """

    folder: Path
    settings: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    values: Float[np.ndarray, "evaluations obj"]

    @property
    def seed(self) -> str:
        """The seed as text."""
        return str(self.settings.get("seed"))


def has_results(folder: Path) -> bool:
    """Whether a folder is that of a finished search, or of searches with many seeds."""
    return any((folder / name).is_file() for name in RESULTS)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders with results among the paths, and directly below those that have none.

    Raises ConfigError for a path that has no results and contains no such folder.
    """
    folders = []
    for path in paths:
        inside = [path] if has_results(path) else sorted({p.parent for name in RESULTS for p in path.glob(f"*/{name}")})
        if not inside:
            raise ConfigError(f"{path} is not a run folder and holds no finished run")
        folders += inside
    return folders


def read_traces(folders: Sequence[Path]) -> list[Trace]:
    """The searches of the folders. Raises ConfigError as `read_run` and `read_seeds` do."""
    return [trace for folder in folders for trace in folder_traces(folder, read_run)]


def folder_traces(folder: Path, read: Callable[[Path], Run]) -> list[Trace]:
    """The searches of one folder: those of all its seeds, or the one that `read` reads."""
    many = (folder / SEEDS_JSON).is_file()
    return traces_of_seeds(read_seeds(folder)) if many else [trace_of(read(folder))]


def trace_of(run: Run) -> Trace:
    """The trace of one run."""
    names = [objective.name for objective in run.objectives]
    rows = [[n.metrics[name] for name in names] if not n.failed else [np.nan] * len(names) for n in run.evaluations]
    values = np.array(rows, np.float64).reshape(-1, len(names))
    return _trace(run.folder, flatten_settings(parse_settings(run.config)), run.objectives, values)


def traces_of_seeds(found: SeedsFolder) -> list[Trace]:
    """A trace for each seed."""
    settings = {key: value for key, value in flatten_settings(found.settings).items() if key != "seeds"}
    return [_trace(found.folder, settings | {"seed": s}, found.objectives, values) for s, values in found.values.items()]


def _trace(
    folder: Path,
    settings: Mapping[str, Any],
    objectives: tuple[Objective, ...],
    values: Float[np.ndarray, "evaluations obj"],
) -> Trace:
    settings = _with_training(settings)
    done, planned = len(values), settings.get("evaluations")
    signs = np.array([objective.sign for objective in objectives], np.float64)
    evaluations = planned if done == planned else f"{done} of {planned}"
    return Trace(folder, {**settings, "evaluations": evaluations}, objectives, values * signs)


def _with_training(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings with those of the training in place of the weights that it made, if its record lies beside these.

    Searches in super-networks that were trained alike, with any seed, are so one group.
    """
    weights = settings.get("supernet.checkpoint")
    record = Path(str(weights)).with_name(TRAINING_RECORD)
    if weights is None or not record.is_file():
        return settings
    try:
        trained = parse_json(read_text(record))
        method, seed = flatten_settings({"trainer": trained["settings"]["trainer"]}), str(trained["seed"])
    except (ValueError, KeyError, TypeError, AttributeError):  # Another file of that name.
        return settings
    own = str(settings.get("seed"))
    seeds = {"seed": own if own == seed else f"{own} (trained with {seed})"}
    return {**{key: value for key, value in settings.items() if key != "supernet.checkpoint"}, **method, **seeds}
