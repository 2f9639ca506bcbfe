"""Tasks made by a user's class or function."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nasjax.errors import ConfigError, one_line
from nasjax.registry import import_object
from nasjax.tasks.base import Task


@dataclass(frozen=True)
class OwnTaskConfig:
    """A task of your own: `target` is `module:name` of a class or function, which is called with `arguments`.

    The module is searched in the working directory first, then on Python's path.
    """

    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def create(self) -> Task:
        """Creates the task. Raises ConfigError if the target does not exist or does not return a Task."""
        if self.target is None:
            raise ConfigError("task=own needs task.target=module:name (in short: task=module:name)")
        maker = import_object(self.target, "task")
        try:
            task = maker(**self.arguments)
        except (Exception, SystemExit) as error:  # The function is the user's: it may raise anything.
            raise ConfigError(f"task={self.target} cannot be created ({one_line(error)})") from error
        if not isinstance(task, Task):
            raise ConfigError(f"task={self.target} returns a {type(task).__name__}, not a nasjax.tasks.Task")
        return task
