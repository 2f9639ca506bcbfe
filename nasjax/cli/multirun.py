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
    sys.argv = ["nasjax", "--multirun", *QUIET, *words]
    hydra.main(config_path="pkg://nasjax.conf", config_name="config", version_base="1.3")(job)()
    return 0


def job(composed: Any) -> None:
    """One search of a sweep."""
    from nasjax.cli.commands import run_search
    from nasjax.cli.schemas import KEYS

    folder = SWEEPS / job_name(list(HydraConfig.get().overrides.task))
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


def job_name(overrides: Sequence[str]) -> str:
    """A folder name that tells the overrides apart: their words, and a digest where those had to be changed."""
    words = ",".join(sorted(overrides))
    name = re.sub(r"[^\w.=,+-]+", "-", words)
    if name == words and 0 < len(name) <= 120:
        return name
    return f"{name[:100]}-{sha256(words.encode()).hexdigest()[:8]}"
