"""Tasks of the user's own class or function."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nasjax.errors import ConfigError
from nasjax.supernets.own import import_object
from nasjax.tasks.base import Task


@dataclass(frozen=True)
class OwnTaskConfig:
    """A task of your own: `target` names what makes it, as `module:name`, called with `arguments`.

    The module is looked for in the working directory first, then on Python's path.
    """

    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def create(self) -> Task:
        """Returns the task. Raises ConfigError if nothing has that name, or if it does not make a Task."""
        if self.target is None:
            raise ConfigError("task=own needs task.target=module:name; task=module:name says the same")
        maker = import_object(self.target, "task")
        try:
            task = maker(**self.arguments)
        except (TypeError, ValueError, OSError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ConfigError(f"task={self.target} cannot be made ({reason})") from error
        if not isinstance(task, Task):
            raise ConfigError(f"task={self.target} makes a {type(task).__name__}, not a nasjax.tasks.Task")
        return task
