"""`nasjax.search`: a search in Python that does what the command does: progress, the report, compiled programs kept."""

from collections.abc import Mapping
from contextlib import nullcontext
from inspect import signature
from typing import Any

from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS
from nasjax.generators import result_of
from nasjax.program_cache import cache_programs
from nasjax.program_counts import search_kind
from nasjax.progress import finish_tracking, run_with_progress, tracked
from nasjax.registry import record, settings
from nasjax.report import write_report
from nasjax.searches.front import Front
from nasjax.searches.loop import searching
from nasjax.searches.problem import SelfMeasuring
from nasjax.supernets import SuperNet
from nasjax.tactics import TACTICS
from nasjax.tasks import Task
from nasjax.trackers import TRACKERS, Tracker, Tracking
from nasjax.verbosity import verbosely


def search(
    net: SuperNet | SelfMeasuring,
    task: Task | None = None,
    *,
    progress: bool = False,
    verbose: bool = False,
    tracker: str | Mapping[str, Any] | Tracker | None = None,
    **arguments: Any,
) -> Front:
    """Searches to the end and returns the Pareto front of the super-network's sub-networks.

    `progress` shows a bar, in a notebook too; `verbose` shows the log, as the command does. `tracker` is where the search is
    shown beside others: a name (`tensorboard`, `trackio`, `wandb`, `mlflow`), a mapping with `name` and settings, or a
    settings object; if it fails, the search continues. The other arguments are those of `searching`. A run folder (`run=`)
    has the files that the command writes, `report.html` included. Compiled programs are kept for the next process in
    `~/.cache/nasjax/xla`, unless JAX has been given a folder (`jax_compilation_cache_dir`). Raises ConfigError for invalid
    settings, and where the package of the tracker is missing.
    """
    known = signature(searching).parameters
    if unknown := [name for name in arguments if name not in known]:
        raise ConfigError(f"nasjax.search has no setting {unknown[0]!r}; allowed: {', '.join(list(known)[2:])}")
    chosen: Tracker = settings("tracker", TRACKERS, "none" if tracker is None else tracker)
    chosen.check(arguments.get("run"))
    cache_programs()
    with verbosely() if verbose else nullcontext(), Tracking(chosen, arguments.get("run")) as tracking:
        steps = tracked(searching(net, task, **arguments), tracking)
        if progress:
            kind = _kind(net, **{key: arguments[key] for key in ("tactic", "evaluator") if key in arguments})
            front = run_with_progress(steps, arguments.get("evaluations", 0), kind=kind)
        else:
            front = result_of(steps)
        if front.folder is not None and front.evaluations["index"]:
            write_report(front.folder)
        finish_tracking(tracking, front)
    return front


def _kind(net: SuperNet | SelfMeasuring, tactic: Any = "ehvi", evaluator: Any = "auto") -> str:
    """The kind of a search, as its progress takes it. Raises ConfigError for unknown names and settings."""
    chosen = record(TACTICS, settings("tactic", TACTICS, tactic))["name"]
    strategy = record(EVALUATORS, settings("evaluator", EVALUATORS, evaluator))["name"]
    return search_kind(chosen, net.origin["name"], strategy)
