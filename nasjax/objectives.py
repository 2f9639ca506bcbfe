"""Objectives: name, unit, direction, reference point. Here, and only here, a sign is flipped."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from nasjax.errors import ConfigError


@dataclass(frozen=True)
class Objective:
    """One objective. `direction` is max or min; `reference` is the hypervolume's, in natural sign."""

    name: str
    direction: str
    unit: str = ""
    reference: float = float("nan")
    about: str = field(default="", compare=False, repr=False)

    @property
    def sign(self) -> int:
        """What its values are multiplied by below the surface, where everything is minimised."""
        return -1 if self.direction == "max" else 1

    @property
    def label(self) -> str:
        """What an axis is labelled with: name, unit, and which way is better."""
        better = "higher is better" if self.direction == "max" else "lower is better"
        return f"{self.name} ({self.unit + ', ' if self.unit else ''}{better})"

    def beats(self, value: float, other: float) -> bool:
        """Whether `value`, in natural sign, is strictly better than `other`."""
        return self.sign * value < self.sign * other


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(
            "accuracy_top1", "max", "%", 0.0, about="share of pictures whose class comes first, % (image classification)"
        ),
        Objective("loss", "min", "nats", about="cross-entropy, nats (image classification)"),
        Objective(
            "bleu", "max", "", 0.0, about="translation quality, 0 to 100 (a column of a table or a function's metric)"
        ),
        Objective("macs", "min", about="multiply-accumulates of one example, exact"),
        Objective("params", "min", about="weights without batch-norm statistics, exact"),
        Objective("latency", "min", "ms", about="milliseconds of a batch, on hardware=… (or a column of a table)"),
        Objective("latency_measured", "min", "ms", about="the same, learnt from the search's own measurements alone"),
        Objective("energy", "min", "J", about="joules of a batch, on hardware=cpu where the processor counts them"),
        Objective("throughput", "max", "1/s", 0.0, about="examples a second, on hardware=…"),
        Objective("memory", "min", "bytes", about="peak of one example's activations, bytes, exact"),
        Objective("model_size", "min", "bytes", about="weights and batch-norm statistics, bytes, exact"),
    )
}
"""Objectives whose direction and unit are known by name; others say theirs, as in `max:f1`."""


def parse_objective(words: str, ranges: Mapping[str, tuple[float, float]]) -> Objective:
    """`name`, or `max:name` / `min:name`; the reference is the worse end of the name's range.

    `ranges` has least and greatest value of all that can be measured; any other name is a ConfigError.

    >>> parse_objective("max:f1", {"f1": (0.0, 1.0), "macs": (1e6, 2e6)})
    Objective(name='f1', direction='max', unit='', reference=0.0)
    """
    match = re.fullmatch(r"(?:(max|min):)?(\w[\w.-]*)", words.strip())
    if match is None:
        raise ConfigError(f"objective {words!r} is not of the form name, max:name or min:name")
    direction, name = match.groups()
    known = OBJECTIVES.get(name)
    if name not in ranges:
        what = f" ({name}: {known.about})" if known else ""
        raise ConfigError(f"objective {name!r} cannot be measured here; allowed: {', '.join(ranges)}{what}")
    direction = direction or (known.direction if known else None)
    if direction is None:
        raise ConfigError(f"objective {name!r} needs a direction: max:{name} or min:{name}")
    worst = ranges[name][0 if direction == "max" else 1]
    if not np.isfinite(worst) and known is not None:
        worst = known.reference
    return Objective(name, direction, known.unit if known else "", worst)


def listed(name: str, words: Any) -> tuple[str, ...]:
    """Several words, or one alone, or None for nothing. Raises ConfigError for anything else."""
    if words is None or isinstance(words, str):
        return () if words is None else (words,)
    found = tuple(words) if isinstance(words, Iterable) else (words,)
    if not all(isinstance(word, str) for word in found):
        raise ConfigError(f"{name} must be a list of words, not {words!r}")
    return found


def parse_objectives(
    words: Sequence[str], ranges: Mapping[str, tuple[float, float]], references: Mapping[str, float]
) -> tuple[Objective, ...]:
    """All objectives of a search, with their `references` where those are given.

    Raises ConfigError for none, for one named twice, for a reference of something else, or as `parse_objective` does.
    """
    objectives = tuple(parse_objective(word, ranges) for word in listed("objectives", words))
    names = [objective.name for objective in objectives]
    if not names:
        raise ConfigError(f"objectives is empty; allowed: {', '.join(ranges)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"objective {twice[0]!r} is named twice")
    for name in references:
        if name not in names:
            raise ConfigError(f"references names {name!r}, which is not an objective; allowed: {', '.join(names)}")
    objectives = tuple(replace(o, reference=float(references.get(o.name, o.reference))) for o in objectives)
    for objective in objectives:
        if not np.isfinite(objective.reference):
            name = objective.name
            raise ConfigError(f"the worst useful {name} is not known: say it as references.{name}=NUMBER")
    return objectives


@dataclass(frozen=True)
class Constraint:
    """`name<=bound`, or `name>=bound`, in the name's natural sign and unit."""

    name: str
    bound: float
    least: bool

    def holds(self, values: Mapping[str, Float[np.ndarray, " pop"]]) -> Bool[np.ndarray, " pop"]:
        """Which networks keep within it; NaN does not."""
        column = np.asarray(values[self.name], np.float64)
        return column >= self.bound if self.least else column <= self.bound


def parse_constraint(words: str, allowed: Iterable[str]) -> Constraint:
    """`name<=number` or `name>=number`. Raises ConfigError for anything else, and for a name that is not `allowed`.

    >>> parse_constraint("latency<=5", ["latency", "macs"])
    Constraint(name='latency', bound=5.0, least=False)
    """
    match = re.fullmatch(r"(\w[\w.-]*?)\s*(<=|>=)\s*(\S+)", words.strip())
    name, sign, bound = match.groups() if match else ("", "", "")
    if match is None or np.isnan(_number(bound)):
        raise ConfigError(f"constraint {words!r} is not of the form name<=number or name>=number")
    if name not in allowed:
        raise ConfigError(f"constraint {words!r}: {name!r} is not known here; allowed: {', '.join(allowed)}")
    return Constraint(name, _number(bound), sign == ">=")


def _number(text: str) -> float:
    """The number that a text is; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def parse_constraints(words: Sequence[str], allowed: Iterable[str]) -> tuple[Constraint, ...]:
    """All constraints of a search. Raises ConfigError as `parse_constraint` does, and for bounds that exclude each other."""
    constraints = tuple(parse_constraint(word, allowed) for word in listed("constraints", words))
    for least in constraints:
        for most in constraints:
            if least.name == most.name and least.least and not most.least and least.bound > most.bound:
                raise ConfigError(
                    f"no {least.name} is at least {least.bound:g} and at most {most.bound:g}: change constraints"
                )
    return constraints


@dataclass(frozen=True)
class Goals:
    """What a search is after: its objectives, and constraints that whatever it returns must keep."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    @cached_property
    def columns(self) -> tuple[Objective, ...]:
        """All that a tactic is told of: the objectives, then what only a constraint names."""
        names = dict.fromkeys(c.name for c in self.constraints)
        more = [name for name in names if name not in [goal.name for goal in self.objectives]]
        return (*self.objectives, *(OBJECTIVES.get(name, Objective(name, "min")) for name in more))

    @cached_property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and greatest minimised value of each column; infinite where no constraint names it."""
        limits = []
        for column in self.columns:
            least = [c.bound for c in self.constraints if c.name == column.name and c.least]
            most = [c.bound for c in self.constraints if c.name == column.name and not c.least]
            low, high = max(least, default=-np.inf), min(most, default=np.inf)
            limits.append((low, high) if column.sign > 0 else (-high, -low))
        return tuple(limits)

    @property
    def reference(self) -> Float[np.ndarray, " obj"]:
        """The hypervolume's reference, minimised. It is fixed before anything is measured."""
        return np.array([goal.sign * goal.reference for goal in self.objectives], np.float64)

    def minimised(self, values: Mapping[str, np.ndarray]) -> Float[np.ndarray, "pop columns"]:
        """Values in natural signs -> what is minimised or bounded; a row with a value that is not finite becomes NaN."""
        matrix = np.stack([c.sign * np.asarray(values[c.name], np.float64) for c in self.columns], axis=1)
        return np.where(np.isfinite(matrix).all(1, keepdims=True), matrix, np.nan)

    def kept(self, values: Float[np.ndarray, "pop columns"]) -> Bool[np.ndarray, " pop"]:
        """Which rows keep every constraint; failed ones do not."""
        low, high = np.array(self.limits, np.float64).T
        return ((values >= low) & (values <= high)).all(1)

    def feasible(self, values: Float[np.ndarray, "pop columns"]) -> Float[np.ndarray, "pop obj"]:
        """The objectives of what `minimised` returned; NaN where a constraint is broken."""
        return np.where(self.kept(values)[:, None], values[:, : len(self.objectives)], np.nan)
