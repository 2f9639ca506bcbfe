"""Reads the files of a run: its networks, its front, its hypervolume, its configuration."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import parse_json, read_text
from nasjax.objectives import Objective
from nasjax.runs.folder import DAMAGED_CONFIG, parse_settings
from nasjax.runs.space_summary import SpaceSummary, gene_with_unknown_option, read_space
from nasjax.words import plural

RUN_AGAIN = "run the same command again"
"""How error messages begin to say what to do about missing and damaged files."""

FILES = ("summary.json", "evaluations.csv", "pareto.csv", "config.yaml")
"""The files that are read of a finished run."""

UNFINISHED = "unfinished.json"
"""While a search runs, and where it was killed, this file has the texts of the others but config.yaml,
by their names: each as it would be if the search had ended after the evaluations so far."""

SUMMARY_TYPES: dict[str, type | tuple[type, ...]] = {
    "supernet": str,
    "task": (str, type(None)),
    "tactic": str,
    "seed": int,
    "evaluations": int,
    "failed": int,
    "from_archive": int,
    "space_size": str,
    "genes": list,
    "metrics": list,
    "objectives": list,
    "hypervolume": list,
    "seconds": dict,
    "version": str,
}
"""The keys that `summary.json` must have, and the types of their values."""


@dataclass(frozen=True)
class Network:
    """One evaluated network of a run.

    `index` is its position in the run's evaluations, `step` the tactic's step that asked for it, `source` where its values
    came from (`measured` or `archive`). `genes` has the options, as text, of the genes that are switched on; `metrics` and
    `errors` the finite values and standard errors, in the metrics' own units. A network is `failed` where an objective could
    not be measured.
    """

    index: int
    step: int | None
    failed: bool
    source: str
    genes: Mapping[str, str]
    metrics: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class PredictorFit:
    """Cross-validated errors of a tactic's predictor of one metric, fitted to `rows` networks before a step measured more.

    `rmse` is in the metric's unit, `mape` in %, `tau` is Kendall's; NaN where they are not defined.
    """

    step: int
    objective: str
    rows: int
    rmse: float
    mape: float
    tau: float


@dataclass(frozen=True)
class Run:
    """A run as its folder states it; `finished` is False for one that is under way, or was killed.

    `summary` is the content of `summary.json`, `config` the text of `config.yaml`. `evaluations` has all networks in the
    order of evaluation, `front` the non-dominated ones, the best in the first objective first. `tests` names the metrics
    measured on test data (`test_…`), which only networks of the front have. `hypervolume` has one value an evaluation.
    `fits` are those of predictors.csv, none for a tactic that fits no predictor.
    """

    folder: Path
    summary: dict[str, Any]
    objectives: tuple[Objective, ...]
    evaluations: tuple[Network, ...]
    front: tuple[Network, ...]
    tests: tuple[str, ...]
    hypervolume: tuple[float, ...]
    config: str
    space: SpaceSummary
    fits: tuple[PredictorFit, ...] = ()
    finished: bool = True


@dataclass(frozen=True)
class _Files:
    """The folder of a run, and the texts of its files by their names where they are not read from it."""

    folder: Path
    texts: Mapping[str, str] | None = None


def read_run(folder: Path) -> Run:
    """Reads summary.json, evaluations.csv, pareto.csv and config.yaml of a finished run, and predictors.csv if it is there.

    Raises ConfigError where one of them is missing or damaged.
    """
    return _read_run(_Files(Path(folder)))


def read_latest(folder: Path) -> Run:
    """The same for a run that may be under way, or may have been killed: as far as it has come.

    Raises ConfigError also where it has stored no results so far.
    """
    return _read_run(_latest_files(Path(folder)))


def read_latest_summary(folder: Path) -> dict[str, Any]:
    """The content of the summary that `read_latest` reads. Raises ConfigError as it does."""
    return _read_summary(_latest_files(Path(folder)))[0]


def _latest_files(folder: Path) -> _Files:
    path = folder / UNFINISHED
    if not path.is_file():
        return _Files(folder)
    with _naming_damage(_Files(folder), UNFINISHED):
        texts = parse_json(read_text(path))
        if not (isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())):
            raise TypeError("it is not an object of texts")
    return _Files(folder, texts)


def _read_run(files: _Files) -> Run:
    folder = files.folder
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a run folder: there is no such directory")
    summary, objectives, hypervolume = _read_summary(files)
    evaluations = _read_evaluations(files, summary, objectives)
    with _naming_damage(files, "summary.json"):
        space = read_space(summary, [network.genes for network in evaluations.values()])
    with _naming_damage(files, "evaluations.csv"):
        for network in evaluations.values():
            if (gene := gene_with_unknown_option(space, network.genes)) is not None:
                raise ConfigError(f"network {network.index} has {gene}={network.genes[gene]!r:.60}, which is not an option")
    front, tests = _read_front(files, summary, objectives, evaluations)
    config = _read_text(_Files(folder), "config.yaml")
    with naming_damage(folder / "config.yaml", DAMAGED_CONFIG):
        parse_settings(config)
    networks, fits = tuple(evaluations.values()), _read_fits(files)
    finished = files.texts is None
    return Run(folder, summary, objectives, networks, front, tests, hypervolume, config, space, fits, finished)


def _read_evaluations(files: _Files, summary: Mapping[str, Any], objectives: Sequence[Objective]) -> dict[int, Network]:
    """The networks of `evaluations.csv` by index."""
    genes, metrics = summary["genes"], summary["metrics"]
    networks: dict[int, Network] = {}
    _, table = _read_table(files, "evaluations.csv", ["index", "step", "status", "source", *genes, *metrics])
    for line, row in table:
        with _naming_damage(files, f"evaluations.csv, line {line}"):
            network = _read_network(row, genes, metrics)
            if network.index in networks:
                raise ConfigError(f"index {network.index} occurs twice")
            # A network without a finite value of every objective was not measured, whatever its status says.
            failed = row["status"] != "ok" or not all(objective.name in network.metrics for objective in objectives)
            step = int(row["step"]) if row["step"] else None
            networks[network.index] = replace(network, step=step, failed=failed, source=row["source"])
    with _naming_damage(files, "evaluations.csv"):
        if len(networks) != summary["evaluations"]:
            counted = plural(summary["evaluations"], "evaluation")
            raise ConfigError(f"it has {plural(len(networks), 'row')} where summary.json counts {counted}")
    return networks


def _read_front(
    files: _Files, summary: Mapping[str, Any], objectives: Sequence[Objective], evaluations: Mapping[int, Network]
) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    """The networks of `pareto.csv`, the best in the first objective first, and the names of its test metrics."""
    genes, names = summary["genes"], [objective.name for objective in objectives]
    header, table = _read_table(files, "pareto.csv", ["index", *genes, *names])
    tests = tuple(n for n in header if n.startswith("test_") and n not in (*genes, *names) and n.removesuffix("_se") == n)
    front = []
    for line, row in table:
        with _naming_damage(files, f"pareto.csv, line {line}"):
            network = _read_network(row, genes, [*names, *tests])
            known = evaluations.get(network.index)
            if known is None or known.failed:
                raise ConfigError(f"network {network.index} is not among those measured in evaluations.csv")
            if missing := [name for name in names if name not in network.metrics]:
                raise ConfigError(f"{missing[0]} is empty")
            metrics, errors = {**known.metrics, **network.metrics}, {**known.errors, **network.errors}
            front.append(replace(known, metrics=metrics, errors=errors))
    front.sort(key=lambda network: (objectives[0].sign * network.metrics[names[0]], network.index))
    return tuple(front), tests


def _read_fits(files: _Files) -> tuple[PredictorFit, ...]:
    """The fits of `predictors.csv`, in order; none without the file, which older runs lack."""
    if files.texts is None and not (files.folder / "predictors.csv").exists():
        return ()
    fits = []
    _, table = _read_table(files, "predictors.csv", ["step", "objective", "rows", "mape", "rmse", "tau"])
    for line, row in table:
        with _naming_damage(files, f"predictors.csv, line {line}"):
            errors = (float(row[name] or "nan") for name in ("rmse", "mape", "tau"))
            fits.append(PredictorFit(int(row["step"]), row["objective"], int(row["rows"]), *errors))
    return tuple(fits)


def _read_summary(files: _Files) -> tuple[dict[str, Any], tuple[Objective, ...], tuple[float, ...]]:
    """The content of `summary.json`, the objectives and the hypervolume after each evaluation."""
    text = _read_text(files, "summary.json")
    with _naming_damage(files, "summary.json"):
        summary = parse_json(text)
        if not isinstance(summary, dict):
            raise TypeError("it is not an object")
        for name, kind in SUMMARY_TYPES.items():
            if name not in summary:
                raise ConfigError(f"it lacks {name!r}")
            if not isinstance(summary[name], kind) or isinstance(summary[name], bool):
                raise TypeError(f"{name!r} is {summary[name]!r:.60}")
        if not re.fullmatch("[0-9]+", summary["space_size"]):
            raise ConfigError(f"'space_size' is {summary['space_size']!r:.60}")
        if not all(isinstance(name, str) for name in summary["genes"] + summary["metrics"]):
            raise ConfigError("'genes' and 'metrics' are not all names")
        if not all(isinstance(value, str | None) for value in dict(summary.get("made") or {}).values()):
            raise ConfigError("'made' has values that are no text")
        objectives = tuple(
            Objective(o["name"], o["direction"], str(o["unit"] or ""), float(o["reference"])) for o in summary["objectives"]
        )
        if not objectives or any(o.direction not in ("max", "min") for o in objectives):
            raise ConfigError("'objectives' needs at least one, each with the direction max or min")
        if unknown := [o.name for o in objectives if o.name not in summary["metrics"]]:
            raise ConfigError(f"the objective {unknown[0]!r} is not among 'metrics'")
        hypervolume = tuple(float(value) for value in summary["hypervolume"])
        if len(hypervolume) != summary["evaluations"] or not all(map(math.isfinite, hypervolume)):
            raise ConfigError(f"'hypervolume' is not {summary['evaluations']} finite numbers")
        summary["seconds"] = {part: float(spent) for part, spent in summary["seconds"].items()}
        if not all(map(math.isfinite, [*summary["seconds"].values(), *(o.reference for o in objectives)])):
            raise ConfigError("'seconds' or a reference is not finite")
    return summary, objectives, hypervolume


@contextmanager
def _naming_damage(files: _Files, place: str) -> Iterator[None]:
    """Turns errors of the block into one ConfigError that names the file; `place` is the file, and the line where known."""
    with naming_damage(
        files.folder / (place if files.texts is None else f"{UNFINISHED} ({place})"), f"{RUN_AGAIN} to write it anew"
    ):
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, csv.Error) as error:
            raise ValueError(getattr(error, "strerror", None) or str(error)) from error


def _read_text(files: _Files, name: str) -> str:
    path = files.folder / name
    if name not in files.texts if files.texts is not None else not path.exists():
        raise ConfigError(f"{files.folder} has no {name}: the search has not finished; {RUN_AGAIN} to resume it")
    if files.texts is not None:
        return files.texts[name]
    with _naming_damage(files, name):
        return read_text(path)


def _read_table(files: _Files, name: str, needed: list[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a CSV and its rows with their line numbers; the columns `needed` must be there."""
    text = _read_text(files, name)
    with _naming_damage(files, name):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        if missing := [column for column in needed if column not in header]:
            raise ConfigError(f"it has no column {missing[0]!r}")
        if len(set(header)) != len(header):
            raise ConfigError("two columns have the same name")
        table = []
        for row in reader:
            if len(row) != len(header):
                raise ConfigError(f"line {reader.line_num} has {len(row)} values for {len(header)} columns")
            table.append((reader.line_num, dict(zip(header, row, strict=True))))
    return header, table


def _read_network(row: Mapping[str, str], genes: Sequence[str], metrics: Sequence[str]) -> Network:
    """Index, genes, metrics and standard errors of a row, which both tables have."""

    def finite_values(columns: Mapping[str, str]) -> dict[str, float]:
        values = {}
        for name, column in columns.items():
            if row.get(column):
                try:
                    value = float(row[column])
                except ValueError:
                    raise ConfigError(f"{column} is {row[column]!r}, not a number") from None
                if math.isfinite(value):
                    values[name] = value
        return values

    values = finite_values({name: name for name in metrics})
    errors = finite_values({name: f"{name}_se" for name in values})
    switched_on = {name: row[name] for name in genes if row[name] != ""}
    return Network(int(row["index"]), None, False, "", switched_on, values, errors)
