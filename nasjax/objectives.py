"""Objectives and constraints of a search: names, units, directions, reference points. Signs are flipped here only."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from nasjax.errors import FAILURE, ConfigError

if TYPE_CHECKING:
    from nasjax.space import SearchSpace

LIMIT = 1e18
"""The greatest absolute value of an objective, a bound and a reference; measurements beyond it count as failed."""

MAX_OBJECTIVES = 16
"""The greatest number of objectives: of values up to LIMIT, their hypervolume is finite in float64 (of two, in float32)."""

BOOKKEEPING = ("index", "step", "status", "source", "count", "seconds", FAILURE)
"""Columns of evaluations.csv and of imported results that are neither genes nor metrics; nor is any `<metric>_se`."""

UNKNOWN = (float("nan"), float("nan"))
"""The range of an objective whose range is unknown."""


@dataclass(frozen=True)
class Objective:
    """One objective, in natural sign.

    Attributes:
      name: its name, as in settings and tables.
      direction: max or min; empty if the user must give it.
      unit: unit of its values.
      reference: its coordinate of the hypervolume's reference point.
      range: the least and greatest value of useful networks.
      about: a description, for messages.
    """

    name: str
    direction: str = ""
    unit: str = ""
    reference: float = float("nan")
    range: tuple[float, float] = field(default=UNKNOWN, compare=False, repr=False)
    about: str = field(default="", compare=False, repr=False)

    @property
    def sign(self) -> int:
        """The factor that turns its values into minimised ones."""
        return -1 if self.direction == "max" else 1

    @property
    def worst(self) -> float:
        """The worse end of its range; NaN if unknown."""
        return self.range[0 if self.direction == "max" else 1]

    @property
    def label(self) -> str:
        """An axis label: name, unit, and the better direction."""
        better = "higher is better" if self.direction == "max" else "lower is better"
        return f"{self.name} ({self.unit + ', ' if self.unit else ''}{better})"

    def beats(self, value: float, other: float) -> bool:
        """Whether `value`, in natural sign, is strictly better than `other`."""
        return self.sign * value < self.sign * other


COST_OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective("macs", "min", about="multiply-accumulates of one example, exact"),
        Objective("params", "min", about="weights without batch-norm statistics, exact"),
        Objective("memory", "min", "bytes", about="peak memory of one example's activations, bytes, exact"),
        Objective("model_size", "min", "bytes", about="weights and batch-norm statistics, bytes, exact"),
    )
}
"""Objectives that are computed from the architecture."""

TIMINGS = {
    objective.name: objective
    for objective in (
        Objective("latency", "min", "ms", about="milliseconds of a batch, on hardware=… (or a column of a table)"),
        Objective("latency_measured", "min", "ms", about="the same, learnt from the search's own measurements alone"),
        Objective("energy", "min", "J", about="joules of a batch, on hardware=cpu where the processor counts them"),
        Objective("throughput", "max", "1/s", range=(0.0, float("inf")), about="examples a second, on hardware=…"),
    )
}
"""Objectives that are measured on a device."""


def measurable(
    ranges: Mapping[str, tuple[float, float]], known: Mapping[str, Objective] = MappingProxyType({})
) -> dict[str, Objective]:
    """An objective for each name in `ranges`, with that range; direction and unit are those `known` for the name.

    Ends of a range that are not finite are replaced by the known ones.
    """
    objectives = {}
    for name, limits in ranges.items():
        named = known.get(name) or COST_OBJECTIVES.get(name) or TIMINGS.get(name) or Objective(name)
        ends = [end if np.isfinite(end) else default for end, default in zip(limits, named.range, strict=True)]
        objectives[name] = replace(named, range=(ends[0], ends[1]))
    return objectives


def parse_objective(text: str, allowed: Mapping[str, Objective]) -> Objective:
    """Parses `name`, `max:name` or `min:name`; the reference is the worse end of the range.

    Raises ConfigError for a name that is not `allowed`, and for a missing direction.

    >>> parse_objective("max:f1", measurable({"f1": (0.0, 1.0), "macs": (1e6, 2e6)}))
    Objective(name='f1', direction='max', unit='', reference=0.0)
    """
    match = re.fullmatch(r"(?:(max|min):)?\s*(\S.*)", text.strip())
    if match is None:
        raise ConfigError(f"objective {text!r} is not of the form name, max:name or min:name")
    direction, name = match.groups()
    if name not in allowed:
        elsewhere = COST_OBJECTIVES.get(name) or TIMINGS.get(name)
        hint = f" ({name}: {elsewhere.about})" if elsewhere else ""
        raise ConfigError(f"objective {name!r} cannot be measured here; allowed: {', '.join(allowed)}{hint}")
    objective = replace(allowed[name], direction=direction or allowed[name].direction)
    if not objective.direction:
        raise ConfigError(f"objective {name!r} needs a direction: max:{name} or min:{name}")
    return replace(objective, reference=objective.worst)


def listed(name: str, words: Any) -> tuple[str, ...]:
    """The strings of a setting that may be a list, one string, or None. Raises ConfigError for anything else."""
    if words is None or isinstance(words, str):
        return () if words is None else (words,)
    found = tuple(words) if isinstance(words, Iterable) else (words,)
    if not all(isinstance(word, str) for word in found):
        raise ConfigError(f"{name} must be a list of strings, not {words!r}")
    return found


def parse_objectives(
    texts: Sequence[str], allowed: Mapping[str, Objective], references: Mapping[str, float]
) -> tuple[Objective, ...]:
    """Parses the objectives of a search; `references` replace the default reference values.

    Raises ConfigError if there are none, for duplicates, for references of other names, and as `parse_objective` does.
    """
    objectives = tuple(parse_objective(text, allowed) for text in listed("objectives", texts))
    names = [objective.name for objective in objectives]
    if not names:
        raise ConfigError(f"objectives is empty; allowed: {', '.join(allowed)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"objective {twice[0]!r} is named twice")
    for name in references:
        if name not in names:
            raise ConfigError(f"references names {name!r}, which is not an objective; allowed: {', '.join(names)}")
    if len(names) > MAX_OBJECTIVES:
        raise ConfigError(f"objectives names {len(names)}; a search has at most {MAX_OBJECTIVES}")
    objectives = tuple(replace(o, reference=_number(references.get(o.name, o.reference))) for o in objectives)
    for objective in objectives:
        _check_range(objective)
        name, reference = objective.name, objective.reference
        if not np.isfinite(reference):
            raise ConfigError(f"{name} has no known reference value: set references.{name}=NUMBER, the worst useful value")
        if abs(reference) > LIMIT:
            raise ConfigError(f"references.{name}={reference:g} is beyond ±{LIMIT:g}: name a worst value that is useful")
    return objectives


def _check_range(objective: Objective) -> None:
    """Raises ConfigError where values are known to be beyond LIMIT."""
    for end in objective.range:
        if np.isfinite(end) and abs(end) > LIMIT:
            raise ConfigError(
                f"{objective.name} has the value {end:g}: values beyond ±{LIMIT:g} cannot be compared; use another unit, "
                f"or nan where it was not measured"
            )


@dataclass(frozen=True)
class Constraint:
    """`name<=bound`, or `name>=bound` (`least`), in natural sign and unit."""

    name: str
    bound: float
    least: bool

    def holds(self, values: Mapping[str, Float[np.ndarray, " pop"]]) -> Bool[np.ndarray, " pop"]:
        """Which networks satisfy the constraint; NaN does not."""
        column = np.asarray(values[self.name], np.float64)
        return column >= self.bound if self.least else column <= self.bound


def parse_constraint(text: str, allowed: Iterable[str]) -> Constraint:
    """Parses `name<=number` or `name>=number`. Raises ConfigError for anything else, and for names that are not `allowed`.

    >>> parse_constraint("latency<=5", ["latency", "macs"])
    Constraint(name='latency', bound=5.0, least=False)
    """
    match = re.fullmatch(r"(.+?)\s*(<=|>=)\s*([^<>=]+)", text.strip())
    name, sign, bound = match.groups() if match else ("", "", "")
    if match is None or np.isnan(_number(bound)):
        raise ConfigError(f"constraint {text!r} is not of the form name<=number or name>=number")
    if name not in allowed:
        raise ConfigError(f"constraint {text!r}: {name!r} is not known here; allowed: {', '.join(allowed)}")
    constraint = Constraint(name, _number(bound), sign == ">=")
    if abs(constraint.bound) > LIMIT and constraint.bound != (-np.inf if constraint.least else np.inf):
        raise ConfigError(f"constraint {text!r}: its bound is beyond ±{LIMIT:g}")
    return constraint


def _number(value: Any) -> float:
    """The value as a number; NaN if it is none, or too large for one."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def parse_constraints(texts: Sequence[str], allowed: Iterable[str]) -> tuple[Constraint, ...]:
    """Parses the constraints of a search. Raises ConfigError as `parse_constraint` does, and for contradictory bounds."""
    constraints = tuple(parse_constraint(text, allowed) for text in listed("constraints", texts))
    for least in constraints:
        for most in constraints:
            if least.name == most.name and least.least and not most.least and least.bound > most.bound:
                raise ConfigError(
                    f"no {least.name} is at least {least.bound:g} and at most {most.bound:g}: change constraints"
                )
    return constraints


@dataclass(frozen=True)
class Goals:
    """The objectives of a search, and constraints that the networks of its front must satisfy.

    `constrained`: objectives for the names that only constraints mention.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    constrained: tuple[Objective, ...] = ()

    @property
    def columns(self) -> tuple[Objective, ...]:
        """The columns of values that a tactic gets: the objectives, then those that only constraints name."""
        return (*self.objectives, *self.constrained)

    @cached_property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and greatest minimised value that constraints allow, by column; infinite without constraints."""
        limits = []
        for column in self.columns:
            least = [c.bound for c in self.constraints if c.name == column.name and c.least]
            most = [c.bound for c in self.constraints if c.name == column.name and not c.least]
            low, high = max(least, default=-np.inf), min(most, default=np.inf)
            limits.append((low, high) if column.sign > 0 else (-high, -low))
        return tuple(limits)

    @property
    def reference(self) -> Float[np.ndarray, " obj"]:
        """The hypervolume's reference point, minimised, which is fixed before anything is measured."""
        return np.array([goal.sign * goal.reference for goal in self.objectives], np.float64)

    def minimised(self, values: Mapping[str, np.ndarray]) -> Float[np.ndarray, "pop columns"]:
        """Columns of minimised values from values in natural sign.

        Rows with a value that is not finite, or beyond LIMIT, become NaN.
        """
        matrix = np.stack([c.sign * np.asarray(values[c.name], np.float64) for c in self.columns], axis=1)
        return np.where((np.abs(matrix) <= LIMIT).all(1, keepdims=True), matrix, np.nan)

    def kept(self, values: Float[np.ndarray, "pop columns"]) -> Bool[np.ndarray, " pop"]:
        """Which rows satisfy all constraints; failed ones do not."""
        low, high = np.array(self.limits, np.float64).T
        return ((values >= low) & (values <= high)).all(1)

    def feasible(self, values: Float[np.ndarray, "pop columns"]) -> Float[np.ndarray, "pop obj"]:
        """The objectives among columns of `minimised`; NaN for rows that violate a constraint."""
        return np.where(self.kept(values)[:, None], values[:, : len(self.objectives)], np.nan)


def parse_goals(
    objectives: Sequence[str],
    constraints: Sequence[str],
    allowed: Mapping[str, Objective],
    references: Mapping[str, float] = MappingProxyType({}),
    space: "SearchSpace | None" = None,
) -> Goals:
    """Parses objectives and constraints of `allowed` names; constraints may also bound the genes of `space`.

    Raises ConfigError as their parsers do, and for a constraint on a gene whose options are not numbers.
    """
    goals = parse_objectives(objectives, allowed, references)
    genes = {gene.name: gene for gene in (() if space is None else space.genes)}
    limits = parse_constraints(constraints, [*allowed, *genes])
    names = dict.fromkeys(constraint.name for constraint in limits)
    for gene in (genes[name] for name in names if name not in allowed):
        if not gene.ordered:
            options = ", ".join(map(str, gene.options))
            raise ConfigError(f"constraints names the gene {gene.name!r}, whose options are not numbers: {options}")
    others = [allowed.get(name) or Objective(name) for name in names if name not in [goal.name for goal in goals]]
    for other in others:
        _check_range(other)
    return Goals(goals, limits, tuple(other if other.direction else replace(other, direction="min") for other in others))
