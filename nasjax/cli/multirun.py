"""Sweeps: Hydra's multirun, each job a search in a folder named from its overrides; what is finished is skipped.

Jobs run one after another, or in other processes by one of Hydra's launchers (`hydra/launcher=joblib`, `submitit_local`, …).
"""

import json
import multiprocessing
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from nasjax.cli.compose import parsed
from nasjax.errors import ConfigError
from nasjax.version import __version__

SWEEPS = Path("multirun")

QUIET = (
    "hydra.output_subdir=null",
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
    f"hydra.sweep.dir={SWEEPS}",
    "hydra.sweep.subdir=.",
)
"""Hydra leaves no folders or logs of its own: a run folder has everything."""

INPUTS = (("supernet", "table"), ("supernet", "checkpoint"), ("task", "path"))
"""The settings that may name a file; where it is newer than a finished job, the job is not skipped."""


def sweep(words: Sequence[str]) -> int:
    """Runs all jobs of a sweep with the launcher that the words choose; the worst of their exit codes."""
    fixed = [o.key_or_group for o in parsed(words) if not o.is_sweep_override()]
    names = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"
    with initialize_config_module("nasjax.conf", job_name="nasjax", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            batches = hydra.multirun("config", job, [*QUIET, names, *words])
        except Exception as error:  # A launcher's own: a job's process was killed, a queue is not there.
            reason = str(error).strip().split("\n")[0]
            print(
                f"nasjax: the launcher failed ({type(error).__name__}: {reason}); the same command goes on", file=sys.stderr
            )
            return 1
    ended = [job_return.return_value for job_return in chain.from_iterable(batches or ())]
    left = [(code, line) for code, line in ended if line]
    print(f"{len(ended) - len(left)} of {len(ended)} jobs are done; nasjax report {SWEEPS} compares them")
    if left:
        # Said again: some launchers keep what a job prints in files of their own.
        print("nasjax: jobs that failed or stopped (the same command goes on with them):", file=sys.stderr)
        print(*(f"  {line}" for _, line in left), sep="\n", file=sys.stderr)
    return max((code for code, _ in left), default=0)


def job(composed: Any) -> tuple[int, str]:
    """One search of a sweep; its exit code, and why it is not done. A failed search raises nothing: the other jobs go on."""
    from nasjax.cli.commands import run_search
    from nasjax.cli.keys import KEYS

    hydra_config = HydraConfig.get()
    folder = SWEEPS / job_name(hydra_config.job.override_dirname, list(hydra_config.overrides.task))
    config: Any = OmegaConf.to_container(composed, resolve=True)
    if finished(folder, config):
        print(f"{folder} is done already", flush=True)
        return 0, ""
    # Beside other jobs every line says whose it is, and no bar is drawn.
    alone = hydra_config.runtime.choices["hydra/launcher"] == "basic"
    print(folder, flush=True)
    try:
        arguments = {key: value for key, value in config.items() if key in KEYS["search"]} | {"run": str(folder)}
        # A launcher's own way to start processes is none that a process of ours could go on with.
        multiprocessing.set_start_method("spawn", force=True)
        complete = run_search(arguments, label="" if alone else folder.name, again="the same command")
    except (ConfigError, OSError) as error:
        code, line = 2, f"{folder}: {error}"
    except Exception as error:
        traceback.print_exc()
        code, line = 1, f"{folder}: {type(error).__name__}: {error}"
    else:
        return 0, "" if complete else f"{folder}: stopped after minutes={config['minutes']}"
    print(f"nasjax: {line}", file=sys.stderr, flush=True)
    return code, line


def finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether this version has finished the run, and the files that it reads have not been written since.

    Equal folder names mean equal overrides.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        return False
    facts = json.loads(summary.read_text())
    if facts["version"] != __version__ or not facts["complete"]:
        return False
    named = [Path((config[group] or {}).get(key) or "") for group, key in INPUTS]
    return all(path.stat().st_mtime_ns <= summary.stat().st_mtime_ns for path in named if path.is_file())


def job_name(swept: str, overrides: Sequence[str]) -> str:
    """A folder name: the overrides that differ between jobs, and a digest of all where these alone do not tell it."""
    every = ",".join(sorted(overrides))
    name = re.sub(r"[^\w.=,+-]+", "-", swept)[:100]
    return name if name == every else f"{name}-{sha256(every.encode()).hexdigest()[:8]}"
