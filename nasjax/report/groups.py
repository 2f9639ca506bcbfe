"""Runs that differ in their seed alone, as groups: their hypervolumes from a common reference point, and their fronts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.pareto import hypervolume_exact, hypervolumes, non_dominated_exact
from nasjax.report.traces import Trace
from nasjax.tactics import UNREAD

IGNORED_SETTINGS = ("seed", "archive", "evaluator.file")
"""Settings in which runs of one group may differ: the seed, and files that no value depends on."""


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs with the same settings but for `IGNORED_SETTINGS`.

    `volumes` has the hypervolume of each run after each evaluation; all have as many. `seeds` and `folders` are the runs'.
    `front` has the objectives, in natural sign, of what no network of any run dominates, in the order of the first
    objective; `fronts` the same of each run alone.
    """

    label: str
    volumes: Float[np.ndarray, "runs evaluations"]
    seeds: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    front: Float[np.ndarray, "networks obj"] = field(default_factory=lambda: np.zeros((0, 1)))
    fronts: tuple[Float[np.ndarray, "networks obj"], ...] = ()

    def quartiles(self) -> Float[np.ndarray, "3 evaluations"]:
        """Lower quartile, median and upper quartile after each evaluation."""
        return np.quantile(self.volumes, (0.25, 0.5, 0.75), axis=0)

    def evaluations_to_reach(self, volume: float) -> Float[np.ndarray, " runs"]:
        """Evaluations until each run has a hypervolume of `volume`; infinite where it never has."""
        reached = self.volumes >= volume
        return np.where(reached.any(1), reached.argmax(1) + 1.0, np.inf)


def group_runs(runs: Sequence[Trace]) -> tuple[list[RunGroup], float]:
    """The runs grouped by settings, and the best hypervolume: that of the networks of all runs together.

    Hypervolumes have a common reference point: in each objective the worst of the runs' own. Raises ConfigError for runs
    with different objectives.
    """
    objectives = [(objective.name, objective.direction) for objective in runs[0].objectives]
    for run in runs:
        if [(objective.name, objective.direction) for objective in run.objectives] != objectives:
            raise ConfigError(f"{run.folder} and {runs[0].folder} have other objectives: they cannot be compared")
    signs = np.array([objective.sign for objective in runs[0].objectives], np.float64)
    reference = np.max([signs * [objective.reference for objective in run.objectives] for run in runs], axis=0)
    labels = _labels(runs)
    groups, every = [], []
    for label in dict.fromkeys(labels):
        chosen = [run for run, other in zip(runs, labels, strict=True) if other == label]
        curves = np.array([hypervolumes(run.values, reference) for run in chosen])
        seeds, folders = tuple(run.seed for run in chosen), tuple(run.folder for run in chosen)
        fronts = tuple(_non_dominated(run.values) for run in chosen)
        front = _non_dominated(np.concatenate(fronts))
        every.append(front)
        groups.append(RunGroup(label, curves, seeds, folders, front * signs, tuple(each * signs for each in fronts)))
    return groups, hypervolume_exact(np.concatenate(every), reference)


def each_seed_once(runs: Sequence[Trace]) -> tuple[list[Trace], list[str]]:
    """The runs without those that repeat another with the same settings and seed, and a remark on each left out."""
    kept: dict[tuple[str, str], Trace] = {}
    remarks = []
    for run, label in zip(runs, _labels(runs), strict=True):
        first = kept.setdefault((label, run.seed), run)
        if first is not run:
            remarks.append(f"{run.folder} is left out: it has the settings and the seed of {first.folder}")
    return list(kept.values()), list(dict.fromkeys(remarks))


def _non_dominated(values: Float[np.ndarray, "pop obj"]) -> Float[np.ndarray, "networks obj"]:
    """The rows that no other dominates, each once, sorted; all minimised."""
    return np.unique(values[non_dominated_exact(values)], axis=0)


def _labels(runs: Sequence[Trace]) -> list[str]:
    """A label for each run: the settings in which it differs from others, but for `IGNORED_SETTINGS`.

    Names (of the tactic, algorithm…) come first; other settings follow where runs with the same names differ in them.
    """
    # Runs of one folder differ in their seed alone: there may be thousands.
    settings = {_key(run): run.settings for run in runs}
    keys = dict.fromkeys(key for flat in settings.values() for key in flat if key not in IGNORED_SETTINGS)
    names = [key for key in keys if key.endswith(".name") and _differ(settings.values(), key)]
    labels = {}
    for each, flat in settings.items():
        read = [name for name in names if _is_read(name, flat)]
        same_names = [other for other in settings.values() if all(other.get(name) == flat.get(name) for name in read)]
        others = [key for key in keys if not key.endswith(".name") and _differ(same_names, key)]
        parts = [str(flat.get(key) or f"no {key.removesuffix('.name')}") for key in read]
        parts += [f"{key}={flat.get(key)}" for key in others if _is_read(key, flat)]
        labels[each] = ", ".join(parts) or flat["tactic.name"]
    return [labels[_key(run)] for run in runs]


def _key(run: Trace) -> tuple[Path, Any]:
    return run.folder, run.settings["evaluations"]


def _is_read(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings, by their dotted names, depends on one of them."""
    reduced = settings.get("space_reduction.name") is not None
    return reduced or key.partition(".")[0] not in UNREAD.get(str(settings.get("tactic.name")), ())


def _differ(settings: Iterable[Mapping[str, Any]], key: str) -> bool:
    """Whether runs that depend on a setting have different values of it."""
    return len({str(flat.get(key)) for flat in settings if _is_read(key, flat)}) > 1
