"""What a tracker is: settings that start a tracked run, which gets metrics step by step, and tables and files at the end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from nasjax.errors import ConfigError

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Header and rows."""


@dataclass(frozen=True)
class Started:
    """A search or training whose tracking begins: its `name`, its `folder` (None: it has none), its settings by dotted name.

    `id` and `step`: those of the tracked run that it continues, and the last step that this has; None and 0 at first.
    """

    name: str
    folder: Path | None
    settings: Mapping[str, Any]
    id: str | None = None
    step: int = 0


class TrackedRun(Protocol):
    """One run in the tracker's store. `id`: by it the tracker finds the run again."""

    id: str

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores finite metrics of a step; steps ascend."""

    def finish(self, tables: Mapping[str, Table], files: Sequence[Path], complete: bool) -> None:
        """Stores tables by name and files that exist, and closes the run; `complete` is false where an error ended it."""


@dataclass(frozen=True)
class Tracker(ABC):
    """Settings of a tracker: the base of all. Nothing is imported or written before `check` and `start`."""

    name: ClassVar[str]
    """The name in the table, and of the extra that installs its package."""

    package: ClassVar[str] = ""
    """The module that must be there; none for what nasjax itself needs."""

    logs_curves: ClassVar[bool] = True
    """Whether it is told the curves of a training that are written as TensorBoard events anyway."""

    def check(self, folder: Path | None) -> None:
        """Raises ConfigError where the package is missing or the tracker cannot track a run with this folder."""
        spec = find_spec(self.package) if self.package else None
        # A folder of the same name, where one is started, is no package.
        if self.package and (spec is None or spec.origin is None):
            raise ConfigError(f"tracker={self.name} needs a package: pip install 'nasjax[{self.name}]'")

    @abstractmethod
    def start(self, run: Started) -> TrackedRun | None:
        """Begins or takes up a tracked run; None where nothing is to be tracked. May raise anything."""


@dataclass(frozen=True)
class NoTracker(Tracker):
    """Nothing is tracked."""

    name = "none"

    def start(self, run: Started) -> None:
        """Begins nothing."""
