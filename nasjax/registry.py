"""Settings by name: the tables of names that each package has serve Python and the command line alike."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from nasjax.errors import ConfigError

KINDS = (
    (bool, (bool, np.bool_), "true or false"),
    (int, Integral, "a whole number"),
    (float, Real, "a number"),
    (str, str, "a word"),
    (tuple, (tuple, list), "a list"),
)
"""What a setting's default is, what may replace it, and how that is called."""


def settings(kind: str, table: Mapping[str, Any], words: Any) -> Any:
    """Settings as an instance: from a name, from a mapping with `name` and changed fields, or already one.

    A table's entry is a dataclass, or an instance of one. Raises ConfigError for an unknown name or field.

    >>> from nasjax.predictors import PREDICTORS
    >>> settings("predictor", PREDICTORS, {"name": "ridge", "penalties": [1.0, 10.0]})
    Ridge(penalties=(1.0, 10.0))
    """
    if is_dataclass(words) and not isinstance(words, type):
        return words
    if not isinstance(words, str | Mapping):
        raise ConfigError(f"{kind} must be a name, a mapping with `name`, or settings, not {words!r}")
    changes = {"name": words} if isinstance(words, str) else dict(words)
    name = changes.pop("name", None)
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; allowed: {', '.join(table)}")
    default = table[name]() if isinstance(table[name], type) else table[name]
    allowed = [field.name for field in fields(default)]
    for field, value in changes.items():
        if field not in allowed:
            raise ConfigError(f"{kind} {name!r} has no setting {field!r}; allowed: {', '.join(allowed) or 'none'}")
        wanted = next((row for row in KINDS if isinstance(getattr(default, field), row[0])), None)
        if wanted is not None and value is not None and not isinstance(value, wanted[1]):
            raise ConfigError(f"{kind}.{field} must be {wanted[2]}, not {value!r}")
    return replace(default, **{field: tuples(value) for field, value in changes.items()})


def record(table: Mapping[str, Any], config: Any, name: str | None = None) -> dict[str, Any]:
    """The mapping that `settings` makes the same instance of (plain data)."""
    if name is None:
        name = next((key for key, entry in table.items() if type(config) in (entry, type(entry))), type(config).__name__)
    return {"name": name, **asdict(config)}


def tuples(value: Any) -> Any:
    """Lists, as YAML has them, as tuples, all the way down."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
