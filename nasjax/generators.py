"""Generators that yield their progress and return a result."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

Step = TypeVar("Step")
Other = TypeVar("Other")
Result = TypeVar("Result")


def result_of(steps: Generator[Step, None, Result], told: Callable[[Step], Any] = lambda step: None) -> Result:
    """Runs a generator to its end, tells `told` of every step that it yields, and returns its result."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            told(step)


def mapped(steps: Generator[Step, None, Result], change: Callable[[Step], Other]) -> Generator[Other, None, Result]:
    """The same generator with every step that it yields changed."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield change(step)
