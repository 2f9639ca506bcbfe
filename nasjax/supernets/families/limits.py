"""What the numbers of a family's settings may be."""

from collections.abc import Callable, Iterator, Mapping
from math import inf
from numbers import Integral, Real
from typing import Any, NamedTuple

from nasjax.errors import ConfigError


class Limit(NamedTuple):
    """Which numbers are allowed, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _from(least: int) -> Callable[[Any], bool]:
    return lambda number: _whole(number) and number >= least


WHOLE = Limit("a whole number", _whole)
COUNT = Limit("a whole number from 1", _from(1))
COUNT_OR_NONE = Limit("a whole number from 0", _from(0))
POSITIVE = Limit("a number above 0", lambda number: isinstance(number, Real) and 0 < float(number) < inf)
ONE_OR_TWO = Limit("1 or 2", lambda number: _whole(number) and number in (1, 2))
ODD = Limit("an odd whole number from 1", lambda number: _from(1)(number) and number % 2 == 1)


def check_limits(config: Any, limits: Mapping[str, Limit]) -> None:
    """Raises ConfigError naming the first setting whose numbers are not allowed, or nested otherwise than its default."""
    for name, limit in limits.items():
        value, default = getattr(config, name), getattr(type(config), name)
        if value != default and not all(map(limit.holds, _numbers(value, _depth(default)))):
            each = ("", "a list, each entry ", "a list of lists, each entry ")[_depth(default)]
            raise ConfigError(f"supernet.{name} must be {each}{limit.words}, not {value}")


def _depth(default: Any) -> int:
    """How many tuples a setting's numbers stand in."""
    return 1 + (_depth(default[0]) if default else 0) if isinstance(default, tuple) else 0


def _numbers(value: Any, depth: int) -> Iterator[Any]:
    """What stands so many tuples deep; None, which no limit allows, where a tuple is missing or empty."""
    if depth == 0:
        yield value
    elif not isinstance(value, tuple) or not value:
        yield None
    else:
        for inner in value:
            yield from _numbers(inner, depth - 1)
