"""What each command does, once its words are understood."""

import argparse
import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from nasjax import supernets, tasks
from nasjax.cli import groups
from nasjax.cli.compose import check_sweep, configuration, rewritten
from nasjax.errors import ConfigError
from nasjax.hardware.profile import Profile, check_energy
from nasjax.hardware.profiling import profiling
from nasjax.hardware.recorded import latency_rows
from nasjax.host import cache_folder
from nasjax.objectives import COSTS, TIMINGS, measurable, parse_goals
from nasjax.report import read_run, write_report
from nasjax.report.compare import write_comparison
from nasjax.report.terminal import front_table, text_table
from nasjax.runs.folder import new_path, read_settings, write_table
from nasjax.searches.dynast import import_results
from nasjax.searches.evaluate import evaluate_table
from nasjax.searches.loop import Progress, searching
from nasjax.searches.problem import follow
from nasjax.tasks import Task
from nasjax.training.run import train_run


def search(options: argparse.Namespace) -> int:
    """`nasjax search`: one search, or with -m a sweep of them."""
    words = rewritten(options.overrides)
    if options.multirun:
        from nasjax.cli.multirun import sweep

        check_sweep("search", words)
        if any(word.startswith("distributed=") for word in words):
            raise ConfigError("distributed= cannot be given with -m: several processes make one search")
        return sweep(words)
    run_search(configuration("search", words))
    return 0


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where no more can be written."""


def run_search(config: dict[str, Any], label: str = "", again: str | None = None) -> bool:
    """Searches as configured, shows progress, prints the front and writes the report; whether the search is complete.

    With a `label`, as a job beside others: plain lines that begin with it, and no table. `again`: the command that goes on.
    Raises ConfigError, with the command that goes on, where the disk is full: nothing is then half-written.
    """
    run = Path(config["run"] or new_path(config["supernet"]["name"]))
    again = again or f"the same command with run={run}"
    try:
        return _run_search(config | {"run": run}, label, again)
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = f"disk full while writing {error.filename or 'to it'}"
        raise ConfigError(f"{what}: make room; {again} goes on from what is stored") from error


def _run_search(config: dict[str, Any], label: str, again: str) -> bool:
    config = dict(config)
    _join(config.pop("distributed", None))
    _prepare_jax()
    net = supernets.create(seed=config["seed"], **config["supernet"])
    task = tasks.create(**config["task"]) if isinstance(net, supernets.SuperNet) else None
    if jax.process_index():
        follow(net, task, config["evaluator"])
        print(f"Process {jax.process_index()} of {jax.process_count()} has done its part")
        return True
    rest = {key: value for key, value in config.items() if key not in ("supernet", "task")}
    if rest["hardware"] is not None and isinstance(net, supernets.SuperNet):
        check_energy((*rest["objectives"], *rest["constraints"]), rest["hardware"])
        if task is not None:  # Before what takes long.
            _check_names(rest["objectives"], rest["constraints"], task)
        rest["hardware"] = profiled(net, rest["hardware"], label)
    stopped = False
    try:
        _show(searching(net, task, **rest), rest["evaluations"], label)
    except KeyboardInterrupt:
        if jax.process_count() > 1:  # What all compute together cannot be taken up again by one.
            print(f"Stopping: what was measured is stored; {again} goes on", file=sys.stderr)
            raise
        stopped = True
        print("Stopping: what was measured is stored, the front so far follows", file=sys.stderr)
        _show(searching(net, task, **(rest | {"minutes": 0})), rest["evaluations"], label)
    run = read_run(rest["run"])
    if not run.evaluations:
        print(f"Nothing was measured; {again} goes on.")
        return False
    page = write_report(rest["run"])
    console = Console()
    done = run.summary["evaluations"]
    if label:
        print(f"{label}: done, {done} evaluations, hypervolume {run.summary['hypervolume'][-1]:.5g}, {page}", flush=True)
        return run.summary["complete"]
    console.print(front_table(run))
    if stopped or (config["minutes"] is not None and done < config["evaluations"]):
        console.print(f"{done} of {config['evaluations']} evaluations; {again} goes on.")
    elif done < config["evaluations"]:
        console.print(f"The space holds no more than these {done} networks.")
    if failed := run.summary["failed"]:
        console.print(f"{failed} evaluation{'s' * (failed > 1)} failed: a metric was not finite.")
    if limits := run.summary.get("constraints"):
        console.print(f"{run.summary['infeasible']} of {done} evaluations broke a constraint ({', '.join(limits)}).")
    console.print(f"Report: {page}", soft_wrap=True)
    if stopped:
        raise SystemExit(130)
    if failed == done:
        raise ConfigError("every evaluation failed; what is wrong is above, or in evaluations.csv")
    return run.summary["complete"]


def _check_names(objectives: Any, constraints: Any, task: Task) -> None:
    """Raises ConfigError for a name that nothing can be known by."""
    known = {objective.name: objective for objective in task.objectives} | COSTS | TIMINGS
    parse_goals(objectives, constraints, measurable(dict.fromkeys(known, (0.0, 1.0)), known))


def train(options: argparse.Namespace) -> int:
    """`nasjax train`."""
    words = rewritten(options.overrides)
    config = configuration("train", words)
    if options.multirun:
        raise ConfigError("nasjax train takes no -m: train one super-network at a time")
    _prepare_jax()
    tuned = config["subnet"] is not None
    if tuned and any(word.startswith("supernet") for word in words):
        raise ConfigError(f"subnet={config['subnet']} says what is trained: leave supernet= out")
    path = Path(config.pop("run") or new_path("train-subnet" if tuned else f"train-{config['supernet']['name']}"))
    command = " ".join(["nasjax train", *(word for word in options.overrides if not word.startswith("run="))])
    with _bar("epochs", "loss") as (bar, line):
        record = train_run(path, config, command, lambda *now: _advance(bar, line, *now))
    for name, scores in record["scores"].items():
        print(f"{name}: {record['metric']} " + ", ".join(f"{split} {value:.4g}" for split, value in scores.items()))
    print(f'Network: {path}; nasjax.load("{path}") reads it' if tuned else f"Weights: {path / 'supernet.safetensors'}")
    return 0


def import_weights(options: argparse.Namespace) -> int:
    """`nasjax import`."""
    words = [word for word in options.overrides if not word.startswith("out=")]
    config = configuration("import", words)["supernet"]
    keys = [word.partition("=")[0] for word in words]
    if "supernet" not in keys:
        raise ConfigError(f"nasjax import {options.checkpoint}: supernet=NAME is missing; nasjax list has the names")
    if "supernet.checkpoint" in keys:
        raise ConfigError(f"the checkpoint to import is {options.checkpoint}: leave supernet.checkpoint out")
    if "checkpoint" not in config:
        raise ConfigError(f"supernet={config['name']} has no weights to import")
    named = [word.removeprefix("out=") for word in options.overrides if word.startswith("out=")]
    out = Path(named[-1] if named else f"{config['name']}.safetensors")
    if out.exists():
        raise ConfigError(f"out={out} exists already; name another file, or remove it")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no folder {out.parent}")
    net = supernets.create(**{**config, "checkpoint": options.checkpoint})
    supernets.save_weights(net, out, {"supernet": config["name"], "source": Path(options.checkpoint).name})
    print(f"Weights: {out}. To use them: supernet={config['name']} supernet.checkpoint={out}")
    return 0


def import_table(options: argparse.Namespace) -> int:
    """`nasjax import-results`."""
    files = [Path(word) for word in options.overrides if "=" not in word or Path(word).is_file()]
    overrides = [word for word in options.overrides if Path(word) not in files]
    named = [word.removeprefix("out=") for word in overrides if word.startswith("out=")]
    words = [word for word in overrides if not word.startswith("out=")]
    out = Path(named[-1] if named else "imported.csv")
    if not files:
        raise ConfigError("nasjax import-results needs at least one result table of DyNAS-T")
    if out.exists():
        raise ConfigError(f"out={out} exists already; name another file, or remove it")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no folder {out.parent}")
    table = import_results(
        files, supernets.abstract(**configuration("import-results", words)["supernet"]) if words else None
    )
    write_table(out, table.header, table.rows)
    for remark in table.remarks:
        print(remark[0].upper() + remark[1:] + ".")
    print(f"{table.evaluations} evaluations of {len(table.rows)} networks, {len(table.genes)} genes.")
    patterns = ",".join(dict.fromkeys(re.sub(r"(?<=_)\d+(_\d+)?$", "*", gene) for gene in table.genes))
    print(f"Table: {out}. To search it: supernet=tabular supernet.table={out} supernet.genes=[{patterns}]")
    return 0


def extract(options: argparse.Namespace) -> int:
    """`nasjax extract`: networks of a run, or given by hand, each in a folder."""
    from nasjax.cli.extraction import extract_networks

    return extract_networks(options.overrides)


def report(options: argparse.Namespace) -> int:
    """`nasjax report`: one run, or several compared."""
    paths = [Path(run) for run in options.runs]
    if len(paths) == 1 and not list(paths[0].glob("*/summary.json")):
        page = write_report(paths[0])
        Console().print(front_table(read_run(paths[0])))
    else:
        _prepare_jax()
        page, rows = write_comparison(paths, Path(options.out) if options.out else paths[0])
        Console().print(text_table(rows))
    print(f"Report: {page}")
    return 0


def list_names(options: argparse.Namespace) -> int:
    """`nasjax list`: every name that a setting may have, with the first line of its file in conf/."""
    rows = []
    for group, names in groups().items():
        for name in names:
            text = files("nasjax.conf").joinpath(group, f"{name}.yaml").read_text()
            lines = [line[2:] for line in text.splitlines() if line.startswith("# ") and not line.startswith("# @")]
            rows.append((f"{group}={name}", lines[0]))
    every = tasks.OBJECTIVES | COSTS | TIMINGS
    rows += [(f"objectives=[{goal.direction}:{goal.name}]", goal.about) for goal in every.values()]
    width = max(len(name) for name, _ in rows)
    # Plain lines: a name that is cut or wrapped cannot be copied.
    for name, words in rows:
        print(f"{name:<{width}}  {words}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """`nasjax evaluate`: measures the architectures of a CSV, or of a run's front."""
    pairs = [word.partition("=")[::2] for word in options.overrides]
    own = {key: value for key, value in pairs if key in ("archs", "out", "run", "split")}
    words = rewritten([word for word in options.overrides if word.partition("=")[0] not in own])
    if "run" in own:
        if words:
            raise ConfigError(f"run={own['run']} says what is evaluated: {words[0]} cannot be given with it")
        config = read_settings(Path(own["run"]))
        own.setdefault("archs", str(Path(own["run"]) / "pareto.csv"))
    else:
        config = configuration("evaluate", words)
    if "archs" not in own:
        raise ConfigError("nasjax evaluate needs archs=FILE.csv, with a column for each gene, or run=FOLDER")
    _prepare_jax()
    header, rows = evaluate_table(config, Path(own["archs"]), own.get("split", "validation"))
    out = Path(own.get("out", "evaluated.csv"))
    write_table(out, header, rows)
    shown = [i for i, name in enumerate(header) if isinstance(rows[0][i], float) and not name.endswith("_se")]
    table = [[str(number), *(f"{row[i]:.5g}" for i in shown)] for number, row in enumerate(rows)]
    Console().print(text_table([["row", *(header[i] for i in shown)], *table]))
    print(f"Written to {out}")
    return 0


def latency(options: argparse.Namespace) -> int:
    """`nasjax latency`: what a search with this hardware measures first."""
    pairs = [word.partition("=")[::2] for word in options.overrides]
    own = {key: value for key, value in pairs if key in ("out", "samples")}
    config = configuration("latency", rewritten([word for word in options.overrides if word.partition("=")[0] not in own]))
    if config["hardware"] is None:
        raise ConfigError("nasjax latency needs hardware=NAME; nasjax list has the names")
    if "samples" in own and not own["samples"].isdecimal():
        raise ConfigError(f"samples={own['samples']} is not a number of networks")
    if "samples" in own and "out" not in own:
        raise ConfigError(f"samples={own['samples']} estimates are for a file: say out=FILE.csv too")
    out = Path(own["out"]) if "out" in own else None
    if out is not None:  # Before what takes long.
        if out.exists():
            raise ConfigError(f"out={out} exists already; name another file, or remove it")
        if not out.parent.is_dir():
            raise ConfigError(f"out={out}: there is no folder {out.parent}")
    _prepare_jax()
    net = supernets.create(seed=config["seed"], **config["supernet"])
    if not isinstance(net, supernets.SuperNet):
        raise ConfigError(f"supernet={config['supernet']['name']} has no layers to time")
    made = profiled(net, config["hardware"])
    if out is not None:
        write_table(out, *latency_rows(made, int(own.get("samples", "0"))))
        print(f"Written to {out}; hardware=csv hardware.file={out} searches with it")
    return 0


def profiled(net: supernets.SuperNet, hardware: Mapping[str, Any], label: str = "") -> Profile:
    """A super-network on hardware, profiled under a progress bar; what is timed is kept in the cache of this machine."""
    if hardware["name"] != "csv" and hardware["file"] is None:
        hardware = {**hardware, "file": str(cache_folder() / "latency.jsonl")}
    start = label and f"{label}: "
    steps = profiling(net, hardware)
    with _bar("timed", "ms", plain=bool(label)) as (bar, line):
        while True:
            try:
                now = next(steps)
            except StopIteration as end:
                made: Profile = end.value
                break
            _advance(bar, line, now.done, now.planned, now.milliseconds, start)
    print(f"{start}{made.summary()}", flush=True)
    return made


HANDLERS = {
    "search": search,
    "train": train,
    "import": import_weights,
    "import-results": import_table,
    "evaluate": evaluate,
    "extract": extract,
    "latency": latency,
    "report": report,
    "list": list_names,
}
"""What runs each command."""


def _join(distributed: list[str] | None) -> None:
    """Joins this process to the others of a search: `[HOST:PORT,NUMBER,INDEX]`, or `[auto]` where the cluster says them."""
    if distributed is None:
        return
    address, *numbers = distributed or [""]
    named = len(numbers) == 2 and all(word.isdigit() for word in numbers)
    if not named and distributed != ["auto"]:
        raise ConfigError(
            f"distributed=[{','.join(distributed)}] must be [auto] or [HOST:PORT,NUMBER,INDEX]: where the first process "
            "listens, how many there are, and which of them, from 0, this one is"
        )
    joined: dict[str, Any] = {}
    if named:
        joined = {"coordinator_address": address, "num_processes": int(numbers[0]), "process_id": int(numbers[1])}
    try:
        jax.distributed.initialize(**joined)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"distributed=[{','.join(distributed)}]: {str(error).splitlines()[0]}") from error


def _prepare_jax() -> None:
    """The persistent compilation cache, unless the environment says where it is; what is logged goes to stderr."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nasjax").setLevel(logging.INFO)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _show(steps: Iterator[Progress], planned: int, label: str = "") -> None:
    """Runs a search to its end under a progress bar; plain lines where the output is not a terminal, or with a label."""
    waiting = 0
    start = label and f"{label}: "
    with _bar("evaluations", "hypervolume", planned, plain=bool(label)) as (bar, line):
        for now in steps:
            if now.waiting and now.waiting != waiting:
                words = f"{start}waiting for {now.waiting} networks that other runs on this archive are measuring"
                bar.console.print(words, markup=False, highlight=False, soft_wrap=True)
            elif not now.waiting:
                _advance(bar, line, now.done, now.planned, now.hypervolume, start)
            waiting = now.waiting


@contextlib.contextmanager
def _bar(things: str, value: str, planned: int | None = None, plain: bool = False) -> Iterator[tuple[Bar, Any]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[name]} {task.fields[value]}"), TimeRemainingColumn())  # fmt: skip
    # Drawn where it advances: a thread that draws meanwhile would disturb what is timed.
    quiet = plain or not sys.stderr.isatty()
    with Bar(*columns, console=Console(stderr=True), disable=quiet, auto_refresh=False) as bar:
        yield bar, bar.add_task(things, total=planned, name=value, value="…")


def _advance(bar: Bar, line: Any, done: int, planned: int, value: float, start: str = "") -> None:
    bar.update(line, completed=done, total=planned, value=f"{value:.5g}", refresh=True)
    if bar.disable:
        task = bar.tasks[0]
        left = task.time_remaining
        words = "" if left is None else f", {timedelta(seconds=round(left))} left"
        print(f"{start}{done}/{planned}, {task.fields['name']} {value:.5g}{words}", file=sys.stderr, flush=True)
