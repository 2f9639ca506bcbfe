"""Generators that yield their progress and return a result."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

Step = TypeVar("Step")
Other = TypeVar("Other")
Result = TypeVar("Result")


def result_of(steps: Generator[Step, None, Result], told: Callable[[Step], Any] = lambda step: None) -> Result:
    """Runs a generator to its end, tells `told` of every step that it yields, and returns its result."""
    result: list[Result] = []
    with closing(_kept(steps, result)) as running:
        for step in running:
            told(step)
    return result[0]


def mapped(steps: Generator[Step, None, Result], change: Callable[[Step], Other]) -> Generator[Other, None, Result]:
    """The same generator with every step that it yields changed."""
    result: list[Result] = []
    with closing(_kept(steps, result)) as running:
        for step in running:
            yield change(step)
    return result[0]


def _kept(steps: Generator[Step, None, Result], result: list[Result]) -> Generator[Step, None, None]:
    """The steps; what the generator returns is put into `result`."""
    result.append((yield from steps))
