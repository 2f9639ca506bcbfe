"""The table of names of every group in `conf/`, and the columns of each name's schema. Imports all of nasjax, and JAX."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

from nasjax.algorithms import ALGORITHMS
from nasjax.evaluation import EVALUATORS
from nasjax.hardware.targets import HARDWARE
from nasjax.predictors import PREDICTORS
from nasjax.supernets import SUPERNETS
from nasjax.tactics import REDUCTIONS, TACTICS
from nasjax.tasks import TASKS
from nasjax.trackers import TRACKERS
from nasjax.training import TRAINERS

GROUPS: dict[str, Mapping[str, Any]] = {
    "supernet": SUPERNETS,
    "task": TASKS,
    "tactic": TACTICS,
    "algorithm": ALGORITHMS,
    "predictor": PREDICTORS,
    "evaluator": EVALUATORS,
    "trainer": TRAINERS,
    "hardware": HARDWARE,
    "space_reduction": REDUCTIONS,
    "tracker": TRACKERS,
}
"""The groups of `conf/`, and the table of names that belongs to each."""

Column = tuple[str, Any, Any]
"""A setting's name, its type in OmegaConf's terms, and its default."""


def columns() -> dict[tuple[str, str], tuple[str, list[Column]]]:
    """For each group and name: the name of the settings' class, and a column for each setting."""
    return {(group, name): _columns(entry) for group, table in GROUPS.items() for name, entry in table.items()}


def _columns(entry: Any) -> tuple[str, list[Column]]:
    """Of a table's entry: a dataclass, or an instance of one."""
    default = entry() if isinstance(entry, type) else entry
    hints = get_type_hints(type(default))
    return type(default).__name__, [
        (part.name, _omegaconf_type(hints[part.name]), _as_lists(getattr(default, part.name))) for part in fields(default)
    ]


def _omegaconf_type(hint: Any) -> Any:
    """The type in OmegaConf's terms: tuples are lists, mappings are dicts."""
    if get_origin(hint) is tuple:
        return list[_omegaconf_type(get_args(hint)[0])]  # type: ignore[misc]
    if get_origin(hint) is Mapping:
        return dict[get_args(hint)]  # type: ignore[misc]
    return hint


def _as_lists(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
