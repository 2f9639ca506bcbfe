"""A tactic whose programs run on a device of one's choice, such as the CPU beside an accelerator that evaluates."""

from dataclasses import dataclass
from typing import Any

import jax

from nasjax.tactics.base import Problem, Tactic, Values
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class OnDevice:
    """The `tactic`, whose programs are compiled for and run on `device`; its states are those of the tactic."""

    tactic: Tactic
    device: jax.Device

    def init(self, key: PRNGKey, problem: Problem) -> Any:
        with jax.default_device(self.device):
            return self.tactic.init(key, problem)

    def ask(self, state: Any) -> tuple[Population, Any]:
        with jax.default_device(self.device):
            return self.tactic.ask(state)

    def tell(self, state: Any, archs: Population, values: Values) -> Any:
        with jax.default_device(self.device):
            return self.tactic.tell(state, archs, values)
