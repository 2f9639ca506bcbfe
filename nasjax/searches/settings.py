"""Settings of a search: checked before anything is measured or written, and recorded in the run folder's config.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from nasjax.algorithms import ALGORITHMS, Algorithm
from nasjax.errors import ConfigError
from nasjax.objectives import listed
from nasjax.predictors import PREDICTORS, Predictor
from nasjax.registry import record, settings
from nasjax.runs.archive import check_archive
from nasjax.runs.folder import check_budget, check_seed
from nasjax.tactics import REDUCTIONS, TACTICS, PopDB, Tactic
from nasjax.tactics.on_device import OnDevice


@dataclass(frozen=True, eq=False)
class SearchSettings:
    """The checked settings of one search, as `nasjax.searching` documents them; `archive` is an absolute path."""

    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    references: Mapping[str, float]
    evaluations: int
    seed: int
    tactic: Tactic
    algorithm: Algorithm
    predictor: Predictor
    space_reduction: PopDB | None
    warm_start: Path | None
    proxies: tuple[str, ...]
    run: Path | None
    archive: Path | None
    minutes: float | None
    tactic_device: str | None

    def placed_tactic(self) -> Tactic:
        """The tactic, on its device where one is set. Raises ConfigError if JAX has been told to leave the CPU out."""
        if self.tactic_device is None:
            return self.tactic
        try:
            return OnDevice(self.tactic, jax.local_devices(backend=self.tactic_device)[0])
        except RuntimeError as error:
            raise ConfigError(f"tactic_device=cpu: JAX has no CPU here ({error}); JAX_PLATFORMS must name it, too") from None

    def record(self, origin: Mapping[str, Any]) -> dict[str, Any]:
        """The content of config.yaml; `origin` records the super-network, the task, the evaluator and the hardware."""
        return {
            "objectives": list(self.objectives),
            "constraints": list(self.constraints),
            "references": dict(self.references),
            "evaluations": self.evaluations,
            "seed": self.seed,
            "tactic": record(TACTICS, self.tactic),
            "algorithm": record(ALGORITHMS, self.algorithm),
            "predictor": record(PREDICTORS, self.predictor),
            **origin,
            "archive": self.archive,
            "warm_start": self.warm_start and self.warm_start.absolute(),
            "space_reduction": self.space_reduction and record(REDUCTIONS, self.space_reduction),
            # Not in the records of runs that were begun before there were any.
            **({"proxies": list(self.proxies)} if self.proxies else {}),
        }


def check_settings(
    *,
    objectives: Sequence[str],
    constraints: Sequence[str],
    references: Mapping[str, float] | None,
    evaluations: int,
    seed: int,
    tactic: str | Mapping[str, Any] | Tactic,
    algorithm: str | Mapping[str, Any] | Algorithm,
    predictor: str | Mapping[str, Any] | Predictor,
    space_reduction: str | Mapping[str, Any] | PopDB | None,
    warm_start: str | Path | None,
    proxies: Sequence[str],
    run: str | Path | None,
    archive: str | Path | None,
    minutes: float | None,
    tactic_device: str | None,
) -> SearchSettings:
    """Checks the arguments of `nasjax.searching` that need no super-network. Raises ConfigError for invalid settings."""
    check_budget(evaluations, minutes)
    check_seed(seed)
    if tactic_device not in (None, "cpu"):
        raise ConfigError(f"tactic_device={tactic_device!r} must be cpu, or null: the device that JAX chooses")
    shared = _path("archive", archive)
    if shared is not None:
        shared = shared.absolute()
        check_archive(shared)
    folder = _path("run", run)
    if folder is not None and (own := folder / "archive.db").exists():
        check_archive(own)
    return SearchSettings(
        objectives=listed("objectives", objectives),
        constraints=listed("constraints", constraints),
        references=references or {},
        evaluations=evaluations,
        seed=seed,
        tactic=settings("tactic", TACTICS, tactic),
        algorithm=settings("algorithm", ALGORITHMS, algorithm),
        predictor=settings("predictor", PREDICTORS, predictor),
        space_reduction=None if space_reduction is None else settings("space_reduction", REDUCTIONS, space_reduction),
        warm_start=_path("warm_start", warm_start),
        proxies=listed("proxies", proxies),
        run=folder,
        archive=shared,
        minutes=minutes,
        tactic_device=tactic_device,
    )


def _path(name: str, value: str | Path | None) -> Path | None:
    if not isinstance(value, str | Path | None):
        raise ConfigError(f"{name} must be the path of a file or folder, not {value!r}")
    return None if value is None else Path(value)
