"""Sweeps: Hydra's multirun, each job a search in a folder named from its overrides; what is finished is skipped."""

import json
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from nasjax.cli.compose import parsed
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


def sweep(words: Sequence[str]) -> int:
    """Runs all jobs of a sweep with the launcher that the words choose."""
    fixed = [o.key_or_group for o in parsed(words) if not o.is_sweep_override()]
    names = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"
    sys.argv = ["nasjax", "--multirun", *QUIET, names, *words]
    hydra.main(config_path="pkg://nasjax.conf", config_name="config", version_base="1.3")(job)()
    return 0


def job(composed: Any) -> None:
    """One search of a sweep."""
    from nasjax.cli.commands import run_search
    from nasjax.cli.schemas import KEYS

    hydra_config = HydraConfig.get()
    folder = SWEEPS / job_name(hydra_config.job.override_dirname, list(hydra_config.overrides.task))
    if finished(folder):
        print(f"{folder} is done already")
        return
    config: Any = OmegaConf.to_container(composed, resolve=True)
    print(folder)
    try:
        run_search({key: value for key, value in config.items() if key in KEYS["search"]} | {"run": str(folder)})
    except ValueError as error:
        print(f"nasjax: {error}", file=sys.stderr)
        sys.exit(2)


def finished(folder: Path) -> bool:
    """Whether this version has finished the run. Equal folder names mean equal overrides."""
    summary = folder / "summary.json"
    return summary.is_file() and json.loads(summary.read_text())["version"] == __version__


def job_name(swept: str, overrides: Sequence[str]) -> str:
    """A folder name: the overrides that differ between jobs, and a digest of all where these alone do not tell it."""
    every = ",".join(sorted(overrides))
    name = re.sub(r"[^\w.=,+-]+", "-", swept)[:100]
    return name if name == every else f"{name}-{sha256(every.encode()).hexdigest()[:8]}"
