"""Settings by name: a name, or a mapping with `name`, becomes a settings dataclass, and back; objects as `module:name`.

Each package has one table of names (`PREDICTORS`, `TASKS`, `SUPERNETS`…), which Python and the command line share.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from importlib import import_module
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, get_type_hints

import numpy as np

from nasjax.errors import ConfigError, one_line

IN_MEMORY: Mapping[str, Any] = MappingProxyType({"name": "in memory"})
"""The record of what was made without a name and settings."""

FIELD_TYPES = (
    (bool, (bool, np.bool_), "true or false"),
    (int, Integral, "a whole number"),
    (float, Real, "a number"),
    (str, str, "a string"),
    (tuple, (tuple, list), "a list"),
)
"""For each type that a field's default may have: the types of values that may replace it, and their name in messages."""

LARGEST: Mapping[str, int] = MappingProxyType(dict.fromkeys(("tactic", "algorithm", "predictor", "space_reduction"), 2**20))
"""The largest whole number of a kind's settings, 2**24 of another: they are sizes of populations and batches, and steps."""


def settings(kind: str, table: Mapping[str, Any], value: Any) -> Any:
    """Returns a settings dataclass: by name, by a mapping with `name` and changed fields, or as given.

    `value` is a name in `table`, a mapping whose `name` is one and whose other entries replace fields (lists become
    tuples), or a dataclass instance, which is returned as it is. Entries of `table` are dataclasses or instances of them.
    `kind` names the setting in messages. Raises ConfigError for an unknown name or field, and for a value of another type
    than the field's default.

    >>> from nasjax.predictors import PREDICTORS
    >>> settings("predictor", PREDICTORS, {"name": "ridge", "penalties": [1.0, 10.0]})
    Ridge(penalties=(1.0, 10.0))
    """
    if is_dataclass(value) and not isinstance(value, type):
        _check_numbers(kind, value)
        return value
    if not isinstance(value, str | Mapping):
        raise ConfigError(f"{kind} must be a name, a mapping with `name`, or settings, not {value!r}")
    changes = {"name": value} if isinstance(value, str) else dict(value)
    name = changes.pop("name", None)
    if name is None:
        raise ConfigError(f"settings of {kind} need a name; allowed: {', '.join(table)}")
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; allowed: {', '.join(table)}")
    default = table[name]() if isinstance(table[name], type) else table[name]
    allowed = [field.name for field in fields(default)]
    hints = get_type_hints(type(default))
    optional = [field for field, hint in hints.items() if hint == (str | None)]  # Files, mostly.
    for field, given in changes.items():
        if field not in allowed:
            raise ConfigError(f"{kind} {name!r} has no setting {field!r}; allowed: {', '.join(allowed) or 'none'}")
        new = given.__fspath__() if field in optional and hasattr(given, "__fspath__") else given
        changes[field] = new
        for default_type, allowed_types, description in FIELD_TYPES:
            if isinstance("" if field in optional else getattr(default, field), default_type):
                if new is not None and not isinstance(new, allowed_types):
                    raise ConfigError(f"{kind}.{field} must be {description}, not {new!r}")
                if (
                    hints[field] == tuple[str, ...]
                    and isinstance(new, tuple | list)
                    and not all(isinstance(item, str) for item in new)
                ):
                    raise ConfigError(f"{kind}.{field} must be a list of strings, not {new!r}")
                break  # A bool is an int too: the first type that fits is the one meant.
    changed = replace(default, **{field: tuples(new) for field, new in changes.items()})
    _check_numbers(kind, changed)
    return changed


def _check_numbers(kind: str, config: Any) -> None:
    """Raises ConfigError for a number that is not one, and for a size whose arrays no computer holds."""
    largest = LARGEST.get(kind, 2**24)
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and value != value:
            raise ConfigError(f"{kind}.{field.name} must be a number, not nan")
        if not isinstance(value, int | np.integer):
            continue
        if field.name == "seed" and not 0 <= int(value) < 2**32:
            raise ConfigError(f"{kind}.seed must be from 0 to {2**32 - 1}, not {value}")
        if field.name != "seed" and abs(int(value)) > largest:
            raise ConfigError(f"{kind}.{field.name} must be at most {largest}, not {value}")


def record(table: Mapping[str, Any], config: Any, name: str | None = None) -> dict[str, Any]:
    """Returns settings as plain data with `name` (looked up in `table` if None): `settings` restores them from it.

    A function is recorded as `module:name`.
    """
    if name is None:
        name = next((key for key, entry in table.items() if type(config) in (entry, type(entry))), type(config).__name__)
    values = ((field.name, getattr(config, field.name)) for field in fields(config))
    functions = {field: object_name(value) for field, value in values if callable(value) and not is_dataclass(value)}
    return {"name": name, **asdict(replace(config, **functions))}


def object_name(value: Any) -> str:
    """The name of a function as `module:name`; of another object, that of its class."""
    named = getattr(value, "func", value)  # The function of a `functools.partial`.
    named = named if hasattr(named, "__qualname__") else type(named)
    return f"{named.__module__}:{named.__qualname__}"


def import_object(path: str, setting: str) -> Any:
    """Imports and returns the object `path`, which is written `module:name`.

    The working directory is put on Python's path. Raises ConfigError, naming the `setting`, for another form, for a module
    or name that does not exist, and for a module that fails while it is imported.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"{setting}={path} is not of the form module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{setting}={path}: there is no module {error.name!r} here or on Python's path; "
                          f"run this in its folder, or name that in PYTHONPATH") from None  # fmt: skip
    except AttributeError:
        raise ConfigError(f"{setting}={path}: module {module!r} has no {name!r}") from None
    except (Exception, SystemExit) as error:  # The module is the user's: importing it may raise anything.
        raise ConfigError(f"{setting}={path}: importing {module!r} failed ({one_line(error)})") from error


def tuples(value: Any) -> Any:
    """Turns lists, at any depth, into tuples: YAML has no tuples, settings no lists."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
