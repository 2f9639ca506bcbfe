"""`nasjax search`: one search, with progress, the front as a table, and the report."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from nasjax import supernets, tasks
from nasjax.cli.compose import configuration_of
from nasjax.cli.console import join_processes, prepare_jax, profile_with_progress
from nasjax.cli.failures import INTERRUPTED, naming_full_disk
from nasjax.cli.options import Arguments
from nasjax.cli.seeds import run_seeds
from nasjax.errors import ConfigError
from nasjax.hardware.profile import check_energy
from nasjax.objectives import COST_OBJECTIVES, LIMIT, TIMINGS, listed, measurable, parse_goals
from nasjax.program_counts import search_kind
from nasjax.progress import finish_tracking, run_with_progress, tracked
from nasjax.registry import settings as settings_of
from nasjax.report import read_run, write_report
from nasjax.report.terminal import front_table
from nasjax.runs.folder import new_path
from nasjax.searches.front import Front
from nasjax.searches.loop import searching
from nasjax.searches.problem import SelfMeasuring, follow
from nasjax.searches.time_spent import TimeSpent
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tasks import Task
from nasjax.trackers import TRACKERS, Tracking
from nasjax.words import plural

NOT_OF_SEARCHING = ("supernet", "task", "distributed", "tracker", "seeds")
"""Settings that `searching` does not take: what is made of them, or what another function does."""

SHOWN_FAILURES = 3
"""Reasons of failed evaluations that are shown after a search, the most frequent ones."""


def search(arguments: Arguments) -> int:
    """Runs `nasjax search` without `-m`."""
    run_search(configuration_of(arguments))
    return 0


def run_search(config: dict[str, Any], label: str = "", resume: str | None = None) -> bool:
    """Searches as configured, shows progress, prints the front, writes the report; returns whether the search is complete.

    With a `label` (a job beside others) plain lines that begin with it are printed, and no table. `resume` is the command
    that continues the search, by default the same command with `run=`.

    Raises ConfigError for invalid settings, where every evaluation failed, and where the disk is full (nothing is then
    half-written, and the line says how to continue). Raises SystemExit after Ctrl-C, once the front so far is shown.
    """
    run = Path(config["run"] or new_path(config["supernet"]["name"]))
    resume = resume or f"the same command with run={run}"
    with naming_full_disk(resume):
        if config.get("seeds") is not None:
            return run_seeds(config | {"run": run}, label, resume)
        return _run_search(config | {"run": run}, label, resume)


def _run_search(config: dict[str, Any], label: str, resume: str) -> bool:
    tracker = settings_of("tracker", TRACKERS, config["tracker"] or "none")
    tracker.check(config["run"])
    join_processes(config.get("distributed"))
    prepare_jax()
    spent = TimeSpent()
    with spent.on("set-up"):
        net = supernets.create(seed=config["seed"], **config["supernet"])
        task = tasks.create(**config["task"]) if isinstance(net, SuperNet) else None
    if jax.process_index():
        follow(net, task, config["evaluator"])
        print(f"Process {jax.process_index()} of {jax.process_count()} has done its part")
        return True
    settings = {key: value for key, value in config.items() if key not in NOT_OF_SEARCHING}
    if settings["hardware"] is not None and isinstance(net, SuperNet):
        _check_metrics(net.space, task, settings)  # Profiling takes long.
        shapes = net.shapes() if task is None else net.shapes(task.steps, task.beams)
        with spent.on("latency table"):
            settings["hardware"] = profile_with_progress(shapes, settings["hardware"], label)
    settings["spent"] = spent
    kind = search_kind(*(config[part]["name"] for part in ("tactic", "supernet", "evaluator")))
    with Tracking(tracker, config["run"]) as tracking:
        front, interrupted = _search_until_interrupted(net, task, settings, tracking, label, kind, resume)
        complete = _print_results(settings, interrupted, label, resume)
        finish_tracking(tracking, front)
    if interrupted and not label:
        raise SystemExit(INTERRUPTED)
    return complete


def _check_metrics(space: SearchSpace, task: Task | None, settings: dict[str, Any]) -> None:
    """Raises ConfigError where an objective or a constraint names a metric that nothing here can measure."""
    objectives, constraints = listed("objectives", settings["objectives"]), settings["constraints"]
    check_energy((*objectives, *constraints), settings["hardware"])
    if task is not None:
        known = {objective.name: objective for objective in task.objectives} | COST_OBJECTIVES | TIMINGS
        parse_goals(objectives, constraints, measurable(dict.fromkeys(known, (0.0, 1.0)), known), space=space)


def _search_until_interrupted(
    net: SuperNet | SelfMeasuring,
    task: Task | None,
    settings: dict[str, Any],
    tracking: Tracking,
    label: str,
    kind: str,
    resume: str,
) -> tuple[Front, bool]:
    """Runs the search; its front, and whether it was interrupted (Ctrl-C): then of what was measured until then."""
    try:
        steps = tracked(searching(net, task, **settings), tracking)
        return run_with_progress(steps, settings["evaluations"], label, kind), False
    except KeyboardInterrupt:
        if jax.process_count() > 1:  # The front is measured by all processes together: one alone cannot.
            print(f"Stopping: what was measured is stored; {resume} resumes the search", file=sys.stderr)
            raise
        print("Stopping: what was measured is stored, the front so far follows", file=sys.stderr)
        steps = searching(net, task, **(settings | {"minutes": 0}))
        return run_with_progress(steps, settings["evaluations"], label), True


def _print_results(settings: dict[str, Any], interrupted: bool, label: str, resume: str) -> bool:
    """Writes the report and prints the front with remarks, or one line with a `label`; whether the search is complete."""
    run = read_run(settings["run"])
    if not run.evaluations:
        print(f"Nothing was measured; {resume} resumes the search.")
        return False
    page = write_report(settings["run"])
    done, complete = run.summary["evaluations"], run.summary["complete"]
    if label:
        print(
            f"{label}: done, {plural(done, 'evaluation')}, hypervolume {run.summary['hypervolume'][-1]:.5g}, {page}",
            flush=True,
        )
        return complete
    console = Console()
    console.print(front_table(run))
    for remark in _remarks(run.summary, settings, interrupted, resume):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {page}", soft_wrap=True)
    if run.summary["failed"] == done and not interrupted:
        raise ConfigError("every evaluation failed; what is wrong is above, or in evaluations.csv")
    return complete


def _remarks(summary: dict[str, Any], settings: dict[str, Any], interrupted: bool, resume: str) -> Sequence[str]:
    """What a person should know of a search that stopped early, or whose evaluations failed or broke a constraint."""
    remarks = []
    done, planned = summary["evaluations"], settings["evaluations"]
    if interrupted or (settings["minutes"] is not None and done < planned):
        remarks.append(f"{done} of {plural(planned, 'evaluation')}; {resume} resumes the search.")
    elif done < planned:
        remarks.append(f"The space has {plural(done, 'network')} only.")
    explained = 0
    for failure in summary["failures"][:SHOWN_FAILURES]:
        number, first = failure["evaluations"], ", ".join(f"{gene}={option}" for gene, option in failure["first"].items())
        explained += number
        why = f"the function {failure['reason']} (first at {first})"
        remarks.append(f"{plural(number, 'evaluation')} failed: {why}.")
    if other := summary["failed"] - explained:
        with_reason = sum(failure["evaluations"] for failure in summary["failures"]) > explained
        beyond = f"a metric was not finite, or beyond ±{LIMIT:g}"
        why = "see their column failure in evaluations.csv" if with_reason else beyond
        remarks.append(f"{plural(other, 'other ' * bool(explained) + 'evaluation')} failed: {why}.")
    if limits := summary.get("constraints"):
        remarks.append(f"{summary['infeasible']} of {plural(done, 'evaluation')} broke a constraint ({', '.join(limits)}).")
    return remarks
