"""Allowed ranges of the numeric settings of a family of super-networks, and the check that enforces them."""

from collections.abc import Callable, Iterator, Mapping
from math import inf
from numbers import Integral, Real
from typing import Any, NamedTuple

from nasjax.errors import ConfigError


class Limit(NamedTuple):
    """A range of allowed numbers: its description for messages, and its test."""

    description: str
    allows: Callable[[Any], bool]


LARGEST = 2**24
"""More than any image, width or number of classes; shapes of larger ones overflow."""


def _is_integer(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _is_integer_of_at_least(least: int) -> Callable[[Any], bool]:
    return lambda number: _is_integer(number) and number >= least


INTEGER = Limit("a whole number", _is_integer)
POSITIVE_INTEGER = Limit("a whole number of at least 1", _is_integer_of_at_least(1))
NON_NEGATIVE_INTEGER = Limit("a whole number of at least 0", _is_integer_of_at_least(0))
POSITIVE = Limit("a number above 0", lambda number: isinstance(number, Real) and 0 < float(number) < inf)
ONE_OR_TWO = Limit("1 or 2", lambda number: _is_integer(number) and number in (1, 2))
ODD = Limit("an odd whole number of at least 1", lambda number: _is_integer_of_at_least(1)(number) and number % 2 == 1)


def check_limits(config: Any, limits: Mapping[str, Limit]) -> None:
    """Checks the numeric settings of a configuration; `limits` has the limit of each by its field's name.

    A setting must be nested as its default is: a number, a tuple of numbers or a tuple of tuples, none of them empty, unless
    it equals the default. Raises ConfigError naming the first setting that is invalid, its value and what is allowed.
    """
    for name, limit in limits.items():
        value, default = getattr(config, name), getattr(type(config), name)
        if value != default and not all(map(limit.allows, _numbers(value, _nesting(default)))):
            each = ("", "a list, each entry ", "a list of lists, each entry ")[_nesting(default)]
            raise ConfigError(f"supernet.{name} must be {each}{limit.description}, not {value}")
        if value != default and any(abs(number) > LARGEST for number in _numbers(value, _nesting(default))):
            raise ConfigError(f"supernet.{name} must be at most {LARGEST}, not {value}")


def _nesting(default: Any) -> int:
    """Returns how many tuples are nested around a setting's numbers: 0, 1 or 2."""
    return 1 + (_nesting(default[0]) if default else 0) if isinstance(default, tuple) else 0


def _numbers(value: Any, nesting: int) -> Iterator[Any]:
    """Yields the numbers inside `nesting` tuples; None, which no limit allows, where a tuple is missing or empty."""
    if nesting == 0:
        yield value
    elif not isinstance(value, tuple) or not value:
        yield None
    else:
        for inner in value:
            yield from _numbers(inner, nesting - 1)
