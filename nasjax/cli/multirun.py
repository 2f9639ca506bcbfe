"""`nasjax search -m` and `nasjax train -m`: a sweep by Hydra, each job a run in a folder named from its overrides.

Finished jobs are skipped. Jobs run one after another, or in other processes by one of Hydra's launchers
(`hydra/launcher=joblib`, `submitit_local`, …).
"""

import multiprocessing
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from nasjax.cli.compose import (
    find_first_file,
    hydra_overrides,
    jobs_of_sweep,
    parse_overrides,
    with_search_path,
)
from nasjax.cli.failures import import_jax, print_any_character, report_failure
from nasjax.cli.hydra_settings import check_overrides
from nasjax.cli.options import COMMANDS, Arguments
from nasjax.errors import ConfigError
from nasjax.host import parse_json, read_text
from nasjax.runs.folder import SEEDS_JSON, STARTED, flatten_settings, parse_settings
from nasjax.version import __version__
from nasjax.words import plural

QUIET = (
    "hydra.output_subdir=null",
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
    "hydra.sweep.subdir=.",
)
"""Settings that keep Hydra from writing folders and logs of its own: a run folder has everything."""

INPUTS = (("supernet", "table"), ("supernet", "checkpoint"), ("task", "path"))
"""The settings that may name a file or a folder of files; where one is newer than a finished job, the job is not skipped."""

COMPARED = ("evaluations", "seed", "seeds", "tactic", "algorithm", "predictor", "supernet", "task", "evaluator", "trainer")
"""The settings, and groups, by which a finished job is told from one of changed configurations."""

TRAINING_INPUTS = ("largest", "teacher", "subnet")
"""Those of a training alone."""


def sweep_searches(arguments: Arguments) -> int:
    """Runs `nasjax search -m`."""
    return _sweep(arguments, search_job, "nasjax report {} compares them")


def sweep_trainings(arguments: Arguments) -> int:
    """Runs `nasjax train -m`."""
    return _sweep(arguments, training_job, "{}/*/record.json has their scores")


def _sweep(arguments: Arguments, task: Callable[[Any], tuple[int, str]], then: str) -> int:
    """Runs all jobs of a sweep with the chosen launcher; returns the largest of their exit codes.

    `then`: what to do next, with the folder of the sweep in the place of `{}`.
    """
    overrides = parse_overrides(hydra_overrides(arguments.settings))
    _check_overrides(overrides)
    of_hydra = with_search_path([str(override.input_line) for override in overrides if override.is_hydra_override()])
    of_jobs = list({o.get_key_element(): o for o in overrides if not o.is_hydra_override()}.values())  # The last counts.
    jobs = jobs_of_sweep(of_jobs, of_hydra)
    import_jax()
    jobs, left_out = _distinct(jobs)
    if left_out:
        print(f"Left out: {plural(left_out, 'job')} that would repeat others, with groups that their tactic does not read")
    fixed = [override.key_or_group for override in of_jobs if not override.is_sweep_override()]
    names = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"
    with initialize_config_module("nasjax.conf", job_name="nasjax", version_base="1.3"):
        hydra: Any = GlobalHydra.instance().hydra
        try:
            # By the launcher itself: Hydra's sweeper first composes the fixed settings alone, so that a setting of
            # tactic=random,… would have to be one of the default tactic's too.
            first = find_first_file(hydra.config_loader, of_hydra)
            # With the first job's words: its files may name the launcher and the folder, too.
            config = hydra.compose_config(first, [*QUIET, names, *of_hydra, *jobs[0]], run_mode=RunMode.MULTIRUN)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
            place = Path(config.hydra.sweep.dir)
            if place.exists() and not place.is_dir():
                raise ConfigError(f"hydra.sweep.dir={place} is not a folder")
            results = [job.return_value for job in launcher.launch(jobs, initial_job_idx=0)]
        except ConfigError:
            raise
        except Exception as error:  # The launcher's: a job's process was killed, a queue cannot be reached.
            reason = str(error).strip().split("\n")[0]
            failure = f"the launcher failed ({type(error).__name__}: {reason})"
            print(f"nasjax: {failure}; the same command resumes the sweep", file=sys.stderr)
            return 1
    unfinished = [(code, line) for code, line in results if line]
    print(f"Done: {len(results) - len(unfinished)} of {plural(len(results), 'job')}; {then.format(config.hydra.sweep.dir)}")
    if unfinished:
        # Printed again: some launchers write what a job prints to files of their own.
        print("nasjax: jobs that failed or stopped (the same command resumes them):", file=sys.stderr)
        print(*(f"  {line}" for _, line in unfinished), sep="\n", file=sys.stderr)
    return max((code for code, _ in unfinished), default=0)


def _distinct(jobs: Sequence[Sequence[str]]) -> tuple[list[list[str]], int]:
    """The jobs without those that differ from an earlier one in what their tactic does not read, and how many these are.

    Only where the words name the tactic, and reduce no space.
    """
    from nasjax.tactics import UNREAD

    kept: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        tactic = next((word.partition("=")[2] for word in job if word.startswith("tactic=")), "")
        reduced = any(word.startswith("space_reduction") for word in job)
        unread = () if reduced else UNREAD.get(tactic, ())
        read = tuple(word for word in job if re.split("[.=]", word.lstrip("+"), maxsplit=1)[0] not in unread)
        kept.setdefault(read, list(job))
    return list(kept.values()), len(jobs) - len(kept)


def _check_overrides(overrides: Sequence[Override]) -> None:
    """Raises ConfigError for settings that a sweep cannot have."""
    check_overrides(overrides)
    keys = [override.key_or_group for override in overrides]
    if "run" in keys:
        raise ConfigError("run= cannot be given with -m: jobs are named from their overrides")
    if any(override.is_sweep_override() and is_tracker(override.key_or_group) for override in overrides):
        raise ConfigError("tracker= cannot have several values with -m: a job is the same with any")
    if "distributed" in keys:
        raise ConfigError("distributed= cannot be given with -m: several processes make one search")


def search_job(composed: Any) -> tuple[int, str]:
    """Runs one search of a sweep, see `_run_job`."""
    from nasjax.cli.search import run_search  # Imports JAX: mistakes in the settings are reported before.

    def run(folder: Path, config: dict[str, Any], label: str) -> str:
        if run_search(config | {"run": str(folder)}, label, "the same command"):
            return ""
        return "interrupted" if config["minutes"] is None else f"stopped after minutes={config['minutes']}"

    return _run_job(composed, "search", "summary.json" if composed.seeds is None else SEEDS_JSON, run)


def training_job(composed: Any) -> tuple[int, str]:
    """Runs one training of a sweep, see `_run_job`."""
    from nasjax.cli.train import run_training

    def run(folder: Path, config: dict[str, Any], label: str) -> str:
        words = list(HydraConfig.get().overrides.task)
        run_training(folder, {key: value for key, value in config.items() if key != "run"}, words, label)
        return ""

    return _run_job(composed, "train", "record.json", run)


def _run_job(composed: Any, command: str, result: str, run: Callable[[Path, dict[str, Any], str], str]) -> tuple[int, str]:
    """Runs one job of a sweep; returns its exit code, and in one line why it is not done ("" where it is).

    `result`: the file that a finished run has. `run(folder, settings, label)` returns why it stopped early. A job that fails
    raises nothing, so that the others continue.
    """
    print_any_character()  # A launcher may have started this process.
    hydra_config = HydraConfig.get()
    words = [word for word in hydra_config.overrides.task if not is_tracker(word.partition("=")[0])]
    folder = Path(hydra_config.sweep.dir) / job_name(hydra_config.job.override_dirname, words)
    config: Any = OmegaConf.to_container(composed, resolve=True)
    if finished(folder / result, config):
        print(f"{folder} is done already", flush=True)
        return 0, ""
    # Jobs that run side by side print lines that begin with the job's name, and draw no bar.
    alone = hydra_config.runtime.choices["hydra/launcher"] == "basic"
    print(folder, flush=True)
    try:
        settings = {key: value for key, value in config.items() if key in COMMANDS[command].settings}
        # A launcher may have set another start method, under which a search cannot start processes.
        multiprocessing.set_start_method("spawn", force=True)
        why = run(folder, settings, "" if alone else folder.name)
    except Exception as error:
        code, line = report_failure(error)
        line = f"{folder}: {line}"
        print(f"nasjax: {line}", file=sys.stderr, flush=True)
        return code, line
    return 0, f"{folder}: {why}" if why else ""


def is_tracker(key: str) -> bool:
    """Whether a setting says how a run is tracked, on which its results do not depend."""
    return key.lstrip("+").partition(".")[0] == "tracker"


def finished(result: Path, config: Mapping[str, Any]) -> bool:
    """Whether this version of nasjax has completed the run that wrote `result`, and what it read has not changed since.

    Equal folder names mean equal overrides; but configurations of one's own may have been changed since.
    """
    if not result.is_file() or (result.parent / STARTED).exists():
        return False
    try:
        facts = parse_json(read_text(result))
        if facts["version"] != __version__ or not facts["complete"]:
            return False
        stored = facts["settings"] if "settings" in facts else _parsed_settings(result.parent)
    except (ValueError, LookupError, TypeError):  # It is damaged: the job writes it anew.
        return False
    if _differ(flatten_settings(stored), flatten_settings(config)):
        return False
    given = [(config[group] or {}).get(key) for group, key in INPUTS] + [config.get(key) for key in TRAINING_INPUTS]
    paths = [Path(path) for path in given if path]
    files = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()]
    return all(file.stat().st_mtime_ns <= result.stat().st_mtime_ns for file in files)


def _parsed_settings(folder: Path) -> Mapping[str, Any]:
    """The settings that a search was made with; none where the folder has none."""
    file = folder / "config.yaml"
    return parse_settings(read_text(file)) if file.is_file() else {}


def _differ(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a number, a list of numbers, or a name in both differs; paths are stored in another form."""

    def plain(value: Any) -> bool:
        return isinstance(value, list) or not isinstance(value, str)

    keys = [key for key in stored.keys() & now.keys() if key.endswith(".name") or (plain(stored[key]) and plain(now[key]))]
    return any(stored[key] != now[key] for key in keys if key.partition(".")[0] in COMPARED)


def job_name(swept: str, overrides: Sequence[str]) -> str:
    """A folder name: the overrides that differ between jobs, and a digest of all where those are too long or not all."""
    every = ",".join(sorted(overrides))
    name = re.sub(r"[^\w.=,+-]+", "-", swept)[:100]
    return name if name == every else f"{name}-{sha256(every.encode()).hexdigest()[:8]}"
