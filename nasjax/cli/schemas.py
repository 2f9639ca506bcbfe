"""Schemas for Hydra, made from the tables of names: they refuse unknown settings and values of a wrong type."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache, partial
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

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


@dataclass
class Schema:
    """Every setting and its default; the fields of a group come from its table."""

    supernet: Any = None
    task: Any = None
    tactic: Any = None
    algorithm: Any = None
    predictor: Any = None
    evaluator: Any = None
    trainer: Any = None
    hardware: Any = None
    tracker: Any = None
    objectives: list[str] = field(default_factory=lambda: ["accuracy_top1", "macs"])
    constraints: list[str] = field(default_factory=list)
    references: dict[str, float] = field(default_factory=dict)
    evaluations: int = 128
    seed: int = 0
    run: str | None = None
    archive: str | None = None
    warm_start: str | None = None
    subnet: str | None = None
    largest: str | None = None
    teacher: str | None = None
    space_reduction: Any = None
    minutes: float | None = None
    distributed: list[str] | None = None


@cache
def register() -> None:
    """Stores a schema for every name, where conf/ refers to it: group `tactic`, name `concurrent_schema`, and so on."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Schema)
    for group, table in GROUPS.items():
        for name, entry in table.items():
            store.store(group=group, name=f"{name}_schema", node=schema(name, entry))


def schema(name: str, entry: Any) -> Any:
    """A dataclass with `name` and the fields and defaults of a table's entry, in types that OmegaConf checks.

    `entry`: a dataclass, or an instance of one.
    """
    default = entry() if isinstance(entry, type) else entry
    hints = get_type_hints(type(default))
    columns: list[Any] = [("name", str, name)]
    for part in fields(default):
        value = _as_lists(getattr(default, part.name))
        columns.append((part.name, _omegaconf_type(hints[part.name]), field(default_factory=partial(deepcopy, value))))
    return make_dataclass(type(default).__name__, columns)


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
