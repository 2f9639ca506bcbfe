"""Numbers, metrics and architectures as text, for pages and the terminal."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from nasjax.objectives import COST_OBJECTIVES, TIMINGS, Objective
from nasjax.runs.reader import Network

UNIT_PREFIXES = ("", "k", "M", "G", "T", "P")
"""Suffixes for powers of a thousand."""


def format_number(value: float, error: float | None = None) -> str:
    """A value with four significant digits, or with the decimals of its standard error: "287.3M", "77.12 ± 0.19".

    Thousands become k, M, G…; values from 1e18 on and below 1e-4 are written with an exponent.
    """
    largest = float(f"{max(abs(value), abs(error or 0.0)):.3e}")
    if largest >= 1e18 or 0 < largest < 1e-4:
        return f"{value:.3e}" + ("" if error is None else f" ± {error:.1e}")
    scale, suffix = scale_and_suffix(largest)
    value, error = value / scale, None if error is None else error / scale
    if not error:
        digits = f"{value:.0f}" if value == round(value) else f"{value:.{_decimals(value, 4)}f}"
        return f"{digits}{suffix}" + ("" if error is None else " ± 0")
    decimals = _decimals(error, 2)
    return f"{value:.{decimals}f}{suffix} ± {error:.{decimals}f}{suffix}"


def scale_and_suffix(largest: float) -> tuple[float, str]:
    """What to divide values by that reach up to `largest`, and the suffix for it; below 10,000 they stay as they are."""
    power = 0 if largest < 1e4 else min(len(UNIT_PREFIXES) - 1, int(math.log10(largest) // 3))
    return 1000.0**power, UNIT_PREFIXES[power]


def _decimals(value: float, digits: int) -> int:
    """The number of decimals, at most 6, that show `digits` significant digits of a value."""
    return min(6, max(0, digits - 1 - math.floor(math.log10(abs(value))))) if value else 0


def format_metric(metrics: Mapping[str, float], errors: Mapping[str, float], name: str) -> str:
    """A metric with its standard error; "–" where it was not measured."""
    return format_number(metrics[name], errors.get(name)) if name in metrics else "–"


def units_of(objectives: Iterable[Objective]) -> dict[str, str]:
    """The unit of each metric that nasjax knows, and of a run's objectives, by name; "" where it has none."""
    known = (*COST_OBJECTIVES.values(), *TIMINGS.values(), *objectives)
    return {objective.name: objective.unit for objective in known}


def column_heading(name: str, units: Mapping[str, str]) -> str:
    """A metric's name with its unit; `test_NAME` has the unit of NAME."""
    unit = units.get(name) or units.get(name.removeprefix("test_"), "")
    return f"{name} ({unit})" if unit else name


def format_architecture(network: Network, genes: Sequence[str]) -> str:
    """All genes in one line, names that differ only in their numbers together: "depth=3,2 kernel=3,5,–,7".

    A dash stands for a gene that is switched off.
    """
    groups: dict[str, list[str]] = {}
    for name in genes:
        groups.setdefault(without_numbers(name), []).append(name)
    return " ".join(
        f"{names[0] if len(names) == 1 else group}={','.join(network.genes.get(name, '–') for name in names)}"
        for group, names in groups.items()
    )


def without_numbers(name: str) -> str:
    """A gene's name without its numbers: "kernel" for "kernel_2_1"; the name itself where nothing else is left."""
    return re.sub(r"[._-]?\d+", "", name) or name


def format_count(digits: str) -> str:
    """A whole number of any length as HTML: in full up to seven digits, then "2.18 × 10¹⁹"."""
    digits = digits.lstrip("0") or "0"
    if len(digits) <= 7:
        return f"{int(digits):,}"
    mantissa, power = f"{Decimal(digits):.2e}".split("e+")
    return f'<span title="{digits[:200]}">{mantissa} × 10<sup>{power}</sup></span>'


def format_duration(seconds: float) -> str:
    """Seconds as "4.2 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
