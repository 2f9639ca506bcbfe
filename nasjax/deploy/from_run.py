"""Extracts and exports sub-networks: of a finished run, or given architectures."""

import logging
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
from nasjax.host import new_place, regular_file
from nasjax.objectives import Constraint, parse_constraint
from nasjax.pareto import knee
from nasjax.registry import settings
from nasjax.runs.archive import Archive, check_archive, digest
from nasjax.runs.csv_io import read_architectures
from nasjax.runs.folder import read_identity, read_settings
from nasjax.runs.reader import Network, Run, read_run
from nasjax.runs.space_summary import option_value
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import load, read_facts
from nasjax.tasks import Task

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A network to be extracted: its index, and its metrics in a run (natural signs and units)."""

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
    """A network written to `folder`, with the bytes of its weights (`size`) and its `metric` on the validation examples:
    `before` re-calibration, with the super-network's batch-norm statistics, and `after`."""

    wanted: Candidate
    extracted: Extracted
    folder: Path
    metric: str
    before: float
    after: float
    size: int


def select_networks(
    run: Path, select: str | None = None, network: int | None = None, archive: str | None = None
) -> list[Candidate]:
    """Networks of a finished run, by index (`network`) or by `select`; `archive`: where its archive is now.

    `select`: `all` networks of the front, its `knee`, or constraints separated by commas, for the network that is best in
    the first objective within them (None: without constraints). Raises ConfigError for invalid settings.
    """
    finished = read_run(run)
    if not finished.front:
        raise ConfigError(f"run={run} has no front: every evaluation failed")
    if network is None:
        chosen = _selected(finished, select or "")
    else:
        chosen = [row for row in finished.evaluations if row.index == network]
    if not chosen:
        last = len(finished.evaluations) - 1
        raise ConfigError(f"network={network} is not in run={run}, which has evaluations 0 to {last}")
    archs = _architectures(run, Path(archive or read_settings(run).get("archive") or run / "archive.db"))
    if unknown := [row.index for row in chosen if row.index not in archs]:
        raise ConfigError(
            f"the archive of run={run} lacks network {unknown[0]} of its evaluations.csv: restore it from a copy"
        )
    return [Candidate(row.index, archs[row.index], row.metrics) for row in chosen]


def _selected(run: Run, select: str) -> list[Network]:
    """The networks of a run that `select` names; see `select_networks`."""
    if select == "all":
        return list(run.front)
    costs = [tuple(goal.sign * row.metrics[goal.name] for goal in run.objectives) for row in run.front]
    if select == "knee":
        return [run.front[knee(np.array(costs))]]
    if select and not any(sign in select for sign in ("<=", ">=")):
        raise ConfigError(f"select={select} must be all, knee, or constraints such as {run.objectives[-1].name}<=5")
    names = [*run.summary["metrics"], *run.summary["genes"]]
    limits = [parse_constraint(text, names) for text in select.split(",") if text.strip()]
    # Among all evaluations: if a constraint is not an objective, the best network that keeps it may not be on the front.
    measured = [row for row in run.evaluations if not row.failed]
    feasible = [row for row in measured if all(limit.holds({limit.name: np.array(_value(row, limit))}) for limit in limits)]
    if not feasible:
        ranges = [
            f"{limit.name} {min(_value(row, limit) for row in measured):.6g} to "
            f"{max(_value(row, limit) for row in measured):.6g}"
            for limit in limits
        ]
        raise ConfigError(f"no network of run={run.folder} keeps {select}; it has {', '.join(ranges)}")
    best = min(feasible, key=lambda row: (*(goal.sign * row.metrics[goal.name] for goal in run.objectives), row.index))
    return [best]


def _value(network: Network, limit: Constraint) -> float:
    """The metric or gene that a constraint names; its bound where that gene is switched off, so that it holds."""
    if limit.name in network.metrics:
        return network.metrics[limit.name]
    option = option_value(network.genes.get(limit.name, str(limit.bound)))
    if option is None:
        raise ConfigError(f"select names {limit.name!r}, whose values are not numbers")
    return option


def _architectures(run: Path, place: Path) -> dict[int, tuple[int, ...]]:
    """The architectures of a run's evaluations, by index, from its archive."""
    regular_file(f"run={run}: its archive (archive={place})", place)
    check_archive(place)
    store = Archive(place, read_identity(run)["id"])
    try:
        return {row.position: row.arch for row in store.evaluations()}
    finally:
        store.close()


def from_choices(space: SearchSpace, choices: str | None, file: Path | None) -> list[Candidate]:
    """Given architectures: one as text, `depth_1=2,kernel_1_1=3,…`, or the rows of a CSV file with a column for each gene.

    Raises ConfigError for anything that is no architecture of the space.
    """
    if file is not None:
        archs = read_architectures("archs", file, space)[0].tolist()
    else:
        options = {gene.name: {str(option): option for option in gene.options} for gene in space.genes}
        pairs = [part.strip().partition("=") for part in (choices or "").split(",") if part.strip()]
        named = {name: options.get(name, {}).get(option, option) for name, _, option in pairs}
        try:
            archs = [space.encode(named).tolist()]
        except ConfigError as error:
            raise ConfigError(f"arch: {error}") from None
    return [Candidate(i, tuple(arch), {}) for i, arch in enumerate(archs)]


def restore(config: Mapping[str, Any], run: Path | None = None) -> RestoredSettings:
    """Creates super-network, task and evaluator from settings.

    Raises ConfigError for a table, and if weights or data have changed since the `run`.
    """
    net = supernets.create(seed=config["seed"], **config["supernet"])
    if not isinstance(net, SuperNet):
        what = f"supernet={config['supernet']['name']} is a table" if run is None else f"run={run} searched a table"
        raise ConfigError(f"{what}, which has no networks to extract")
    task = tasks.create(**config["task"])
    task.check(net)
    if warning := supernets.untrained_warning(net):
        LOG.warning(warning)
    try:
        evaluator = settings("evaluator", EVALUATORS, config["evaluator"]).bind(net, task)
    except ConfigError as error:
        if run is None:
            raise
        raise ConfigError(
            f"run={run} has settings that cannot be used ({error}); another version of nasjax wrote it"
        ) from error
    if run is not None and digest(evaluator.context) != read_identity(run)["context"]:
        raise ConfigError(f"run={run} was measured with other weights or data than the present ones: restore those")
    return RestoredSettings(net, task, evaluator)


def extract_and_write(
    restored: RestoredSettings,
    wanted: Sequence[Candidate],
    folders: Sequence[Path],
    exports: Sequence[str] = (),
    batch: int | None = None,
    progress: Callable[[int, WrittenSubnet], None] = lambda done, written: None,
) -> list[WrittenSubnet]:
    """Extracts each network into its folder, with files of the suffixes in `exports`; all of them, or none.

    Every file's outputs are verified in a separate process before any folder appears. `progress(done, last)` is called after
    each network. Raises ConfigError for a folder that exists, and for an export that is impossible.
    """
    for target in folders:
        new_place(f"out={target}", target, "folder")
    for suffix in exports:
        kind(suffix)
    parent = next(place for place in folders[0].absolute().parents if place.exists())
    _remove_abandoned(parent)
    staging = parent / f"{_staging_prefix()}{os.getpid()}"
    written = []
    try:
        for done, (one, target) in enumerate(zip(wanted, folders, strict=True), 1):
            written.append(_extract_and_write(restored, one, staging / str(done), target, exports, batch))
            progress(done, written[-1])
        _move({staging / str(done): subnet.folder for done, subnet in enumerate(written, 1)})
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def _move(folders: Mapping[Path, Path]) -> None:
    """Moves all folders, or none."""
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


def _staging_prefix() -> str:
    """The prefix of this machine's staging folders; the process id follows."""
    return f".extract-{socket.gethostname()}-"


def _remove_abandoned(parent: Path) -> None:
    """Removes staging folders of this machine's processes that were killed."""
    for folder in parent.glob(f"{_staging_prefix()}*"):
        try:
            os.kill(int(folder.name.removeprefix(_staging_prefix())), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):  # No process id, or a running process of another user.
            continue


def _extract_and_write(
    restored: RestoredSettings, wanted: Candidate, place: Path, target: Path, exports: Sequence[str], batch: int | None
) -> WrittenSubnet:
    """Extracts a network into the staging folder `place`, which is moved to `target` later."""
    net, task, size = restored.net, restored.task, restored.evaluator.batch
    extracted = extract_subnet(net, restored.evaluator, wanted.arch, task.validation.take(slice(size)).inputs)
    extracted.save(place, exports, batch)
    # Without batch norms nothing is re-calibrated: one network is measured, before and after.
    networks = [extract(net, wanted.arch), extracted.network] if net.has_norms else [extracted.network]
    metrics = validation_metrics(networks, task, size)
    before, after = metrics[0], metrics[-1]
    metric = task.objectives[0].name
    weights = (place / "network.safetensors").stat().st_size
    return WrittenSubnet(wanted, extracted, target, metric, before[metric], after[metric], weights)


def load_subnet(folder: Path, config: Mapping[str, Any]) -> tuple[Extracted, dict[str, float]]:
    """The network in a folder of `nasjax extract` or `nasjax train`, and its metrics on the validation examples.

    Raises ConfigError if the folder has no network, or if the examples of `config` do not fit it.
    """
    network = load(folder)
    facts = read_facts(folder)
    task = tasks.create(**config["task"])
    batch = settings("evaluator", EVALUATORS, config["evaluator"]).batch
    host = network.host((0,) * len(network.space.genes))
    if not host:  # With a host option, inputs are scaled.
        task.check(network)
    inputs = jax.tree.map(np.asarray, network.prepare(task.validation.take(slice(batch)).inputs, host))
    metrics = validation_metrics([network], task, batch)[0]
    outputs = network_outputs(network, inputs)
    arch, choices = tuple(facts["arch"]), facts["choices"]
    return Extracted(network, network.origin, arch, choices, 0.0, inputs, outputs, task.files()), metrics


def add_exports(extracted: Extracted, folder: Path, suffixes: Sequence[str], batch: int | None = None) -> list[Path]:
    """Exports a network to files of these suffixes in its `folder`: all of them, or none.

    Raises ConfigError for a file that exists, and for an export that is impossible.
    """
    files = [[folder / name for name in kind(suffix).names(extracted.network)] for suffix in suffixes]
    for file in (file for some in files for file in some):
        new_place(str(file), file)
    written: list[Path] = []
    try:
        for some in files:
            written += extracted.export_to(some, batch)
    except BaseException:
        for file in written:
            file.unlink()
        raise
    return written
