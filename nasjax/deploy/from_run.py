"""Hands networks over: those of a finished run, or any architecture given by hand."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax import supernets, tasks
from nasjax.deploy.subnet import Extracted, extract_subnet, network_outputs, validation_metrics
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, PopulationEvaluator
from nasjax.export import kind
from nasjax.objectives import parse_constraint
from nasjax.pareto import knee
from nasjax.registry import settings
from nasjax.runs.archive import Archive, digest
from nasjax.runs.csv_io import read_architectures
from nasjax.runs.folder import read_settings
from nasjax.runs.reader import Network, Run, read_run
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import load
from nasjax.tasks import Task


@dataclass(frozen=True)
class Candidate:
    """A network to be handed over: its number, and what a run has measured of it (natural signs and units)."""

    index: int
    arch: tuple[int, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class RestoredSettings:
    """A super-network, its task, and the evaluator that re-calibrates and measures its networks."""

    net: SuperNet
    task: Task
    evaluator: PopulationEvaluator


@dataclass(frozen=True, eq=False)
class WrittenSubnet:
    """A network in its `folder`. `metric` on the validation examples with the super-network's batch-norm statistics
    (`before`) and with its own (`after`), as the extracted network gives it; `size` of its weights, in bytes."""

    wanted: Candidate
    extracted: Extracted
    folder: Path
    metric: str
    before: float
    after: float
    size: int


def select_networks(run: Path, select: str | None = None, network: int | None = None) -> list[Candidate]:
    """Networks of a finished run: that of an index, or selected.

    `select`: `all` (of the front), `knee` (of the front), or constraints joined by commas, of whose networks the best in the
    first objective is taken (None: of all). Raises ConfigError for what a person can put right.
    """
    finished = read_run(run)
    if not finished.front:
        raise ConfigError(f"run={run} has no front: every evaluation failed")
    if network is None:
        found = _selected(finished, select or "")
    else:
        found = [row for row in finished.evaluations if row.index == network]
    if not found:
        last = len(finished.evaluations) - 1
        raise ConfigError(f"network={network} is not in run={run}, which has evaluations 0 to {last}")
    archs = _architectures(run)
    return [Candidate(row.index, archs[row.index], row.metrics) for row in found]


def _selected(run: Run, select: str) -> list[Network]:
    if select == "all":
        return list(run.front)
    costs = [tuple(goal.sign * row.metrics[goal.name] for goal in run.objectives) for row in run.front]
    if select == "knee":
        return [run.front[knee(np.array(costs))]]
    if select and not any(sign in select for sign in ("<=", ">=")):
        raise ConfigError(f"select={select} is none of all, knee and constraints such as {run.objectives[-1].name}<=5")
    limits = [parse_constraint(words, run.summary["metrics"]) for words in select.split(",") if words.strip()]
    # Of all evaluations: where a constraint is no objective, the best that keeps it need not be on the front.
    measured = [row for row in run.evaluations if not row.failed]
    kept = [row for row in measured if all(limit.holds({limit.name: np.array(row.metrics[limit.name])}) for limit in limits)]
    if not kept:
        ranges = [
            f"{limit.name} {min(row.metrics[limit.name] for row in measured):.6g} to "
            f"{max(row.metrics[limit.name] for row in measured):.6g}"
            for limit in limits
        ]
        raise ConfigError(f"no network of run={run.folder} keeps {select}; it has {', '.join(ranges)}")
    best = min(kept, key=lambda row: (*(goal.sign * row.metrics[goal.name] for goal in run.objectives), row.index))
    return [best]


def _architectures(run: Path) -> dict[int, tuple[int, ...]]:
    """The architectures of a run's evaluations, by index."""
    place = Path(read_settings(run)["archive"] or run / "archive.db")
    if not place.is_file():
        raise ConfigError(f"run={run} has its measurements in {place}, which is not there")
    store = Archive(place, json.loads((run / "run.json").read_text())["id"])
    try:
        return {row.position: row.arch for row in store.evaluations()}
    finally:
        store.close()


def from_choices(space: SearchSpace, words: str | None, file: Path | None) -> list[Candidate]:
    """Architectures that a person names: `depth_1=2,kernel_1_1=3,…`, or the rows of a CSV with a column for each gene.

    Raises ConfigError for what is no architecture of the space.
    """
    if file is not None:
        archs = read_architectures("archs", file, space)[0].tolist()
    else:
        options = {gene.name: {str(option): option for option in gene.options} for gene in space.genes}
        pairs = [part.strip().partition("=") for part in (words or "").split(",") if part.strip()]
        named = {name: options.get(name, {}).get(option, option) for name, _, option in pairs}
        try:
            archs = [space.encode(named).tolist()]
        except ConfigError as error:
            raise ConfigError(f"arch: {error}") from None
    return [Candidate(i, tuple(arch), {}) for i, arch in enumerate(archs)]


def restore(config: Mapping[str, Any], run: Path | None = None) -> RestoredSettings:
    """What settings name. Raises ConfigError where it is no super-network, or is not what a `run` was measured with."""
    net = supernets.create(seed=config["seed"], **config["supernet"])
    if not isinstance(net, SuperNet):
        what = f"supernet={config['supernet']['name']} is a table" if run is None else f"run={run} searched a table"
        raise ConfigError(f"{what}: it has no networks to extract")
    task = tasks.create(**config["task"])
    task.check(net)
    evaluator = settings("evaluator", EVALUATORS, config["evaluator"]).bind(net, task)
    if run is not None and digest(evaluator.context) != json.loads((run / "run.json").read_text())["context"]:
        raise ConfigError(f"run={run} was measured with other weights or data than are there now: put those back")
    return RestoredSettings(net, task, evaluator)


def extract_and_write(
    restored: RestoredSettings,
    wanted: Sequence[Candidate],
    folders: Sequence[Path],
    exports: Sequence[str] = (),
    batch: int | None = None,
    progress: Callable[[int, WrittenSubnet], None] = lambda done, handed: None,
) -> list[WrittenSubnet]:
    """Writes each network into its folder, with files of the suffixes in `exports`; all of them, or none.

    Every file answers right in a process of its own before any folder is there. `progress(done, last)` is called after
    each network. Raises ConfigError for a folder that exists, and for an export that cannot be made.
    """
    for target in folders:
        if target.exists():
            raise ConfigError(f"out={target} exists already; name another folder, or remove it")
    for suffix in exports:
        kind(suffix)
    parent = next(place for place in folders[0].absolute().parents if place.exists())
    _clear(parent)
    staging = parent / f"{_staging()}{os.getpid()}"
    found = []
    try:
        for done, (one, target) in enumerate(zip(wanted, folders, strict=True), 1):
            found.append(_extract_and_write(restored, one, staging / str(done), target, exports, batch))
            progress(done, found[-1])
        _move({staging / str(done): handed.folder for done, handed in enumerate(found, 1)})
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return found


def _move(folders: Mapping[Path, Path]) -> None:
    """Moves folders, all or none."""
    moved: list[Path] = []
    try:
        for place, target in folders.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(place, target)
            moved.append(target)
    except BaseException:
        for target in moved:
            shutil.rmtree(target)
        raise


def _staging() -> str:
    """How folders begin that a process of this machine writes networks in, before its number."""
    return f".extract-{socket.gethostname()}-"


def _clear(parent: Path) -> None:
    """Removes what processes of this machine that were killed have left."""
    for folder in parent.glob(f"{_staging()}*"):
        try:
            os.kill(int(folder.name.removeprefix(_staging())), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):  # No number; or it runs, and is somebody else's.
            continue


def _extract_and_write(
    restored: RestoredSettings, wanted: Candidate, place: Path, target: Path, exports: Sequence[str], batch: int | None
) -> WrittenSubnet:
    """Writes a network to `place`, from where it goes to `target`."""
    net, task, size = restored.net, restored.task, restored.evaluator.batch
    extracted = extract_subnet(net, restored.evaluator, wanted.arch, task.validation.take(slice(size)).inputs)
    extracted.save(place, exports, batch)
    before, after = validation_metrics([extract(net, wanted.arch), extracted.network], task, size)
    metric = task.objectives[0].name
    weights = (place / "network.safetensors").stat().st_size
    return WrittenSubnet(wanted, extracted, target, metric, before[metric], after[metric], weights)


def load_subnet(folder: Path, config: Mapping[str, Any]) -> tuple[Extracted, float]:
    """The network in a folder that `nasjax extract` or `nasjax train` wrote, and its task's first metric on validation data.

    Raises ConfigError where the folder has none, or where the examples of `config` are not those that it takes.
    """
    network = load(folder)
    facts = json.loads((folder / "config.json").read_text())
    task = tasks.create(**config["task"])
    batch = settings("evaluator", EVALUATORS, config["evaluator"]).batch
    host = network.host((0,) * len(network.space.genes))
    if not host:  # Else inputs are scaled.
        task.check(network)
    inputs = jax.tree.map(np.asarray, network.prepare(task.validation.take(slice(batch)).inputs, host))
    value = validation_metrics([network], task, batch)[0][task.objectives[0].name]
    outputs = network_outputs(network, inputs)
    return Extracted(network, network.origin, tuple(facts["arch"]), facts["choices"], 0.0, inputs, outputs), value


def add_exports(extracted: Extracted, folder: Path, suffixes: Sequence[str], batch: int | None = None) -> list[Path]:
    """Writes files of these suffixes beside a network that is in `folder` already: all of them, or none.

    Raises ConfigError for a file that is there, and for an export that cannot be made.
    """
    files = [folder / f"{kind(suffix).stem}{suffix}" for suffix in suffixes]
    for file in files:
        if file.exists():
            raise ConfigError(f"{file} exists already; name another folder, out=FOLDER, or remove it")
    written = []
    try:
        for file in files:
            written.append(extracted.export(file, batch))
    except BaseException:
        for file in written:
            file.unlink()
        raise
    return written
