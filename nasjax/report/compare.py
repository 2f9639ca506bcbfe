"""Several runs beside each other: the same settings under different seeds are one curve with quartiles."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.host import replace_file
from nasjax.pareto import hypervolume_exact, hypervolumes
from nasjax.report import svg
from nasjax.report.plots import padded
from nasjax.runs.reader import Run, number, read_run
from nasjax.version import __version__

SHARES = (0.90, 0.95, 0.99)
"""Shares of the best hypervolume whose price in evaluations is told."""

SERIES = ("#2f74b5", "#c2410c", "#2a8c6e", "#8250c4", "#b8860b", "#c2397a", "#59636e", "#1b9aaa")
"""Colours of curves, the page's s0 to s7; a ninth curve takes the first again."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in their seed alone. `volumes` (runs, evaluations): the shortest run sets the length."""

    label: str
    volumes: Float[np.ndarray, "runs evaluations"]

    def quartiles(self) -> Float[np.ndarray, "3 evaluations"]:
        """Lower quartile, median and upper quartile after each evaluation."""
        return np.quantile(self.volumes, (0.25, 0.5, 0.75), axis=0)

    def price(self, volume: float) -> Float[np.ndarray, " runs"]:
        """Evaluations that each run needed to reach a hypervolume; infinite where it did not."""
        reached = self.volumes >= volume
        return np.where(reached.any(1), reached.argmax(1) + 1.0, np.inf)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders among the paths and right below them. Raises ConfigError where a path holds none."""
    found = []
    for path in paths:
        inside = [path] if (path / "summary.json").is_file() else sorted(p.parent for p in path.glob("*/summary.json"))
        if not inside:
            raise ConfigError(f"{path} is not a run folder and holds no finished run")
        found += inside
    return found


def groups(runs: Sequence[Run]) -> tuple[list[Group], float]:
    """The runs by settings, and the best hypervolume: that of all their networks together.

    The reference point is common: the worst of the runs' own in each objective. Raises ConfigError for different objectives.
    """
    goals = [(goal.name, goal.direction) for goal in runs[0].objectives]
    for run in runs:
        if [(goal.name, goal.direction) for goal in run.objectives] != goals:
            raise ConfigError(f"{run.folder} and {runs[0].folder} have other objectives: they cannot be compared")
    signs = np.array([goal.sign for goal in runs[0].objectives], np.float64)
    reference = np.max([signs * [goal.reference for goal in run.objectives] for run in runs], axis=0)
    values = [_values(run, signs) for run in runs]
    labels = _labels(runs)
    made = []
    for label in dict.fromkeys(labels):
        curves = [hypervolumes(value, reference) for value, own in zip(values, labels, strict=True) if own == label]
        length = min(map(len, curves))
        made.append(Group(label, np.array([curve[:length] for curve in curves])))
    return made, hypervolume_exact(np.concatenate(values), reference)


def _values(run: Run, signs: Float[np.ndarray, " obj"]) -> Float[np.ndarray, "pop obj"]:
    names = [goal.name for goal in run.objectives]
    rows = [[n.metrics[name] for name in names] if not n.failed else [np.nan] * len(names) for n in run.evaluations]
    return np.array(rows, np.float64).reshape(-1, len(names)) * signs


def _labels(runs: Sequence[Run]) -> list[str]:
    """Per run, the settings in which the runs differ, but for seed and budget.

    The names of tactics and the like come first; their settings follow where runs of the same names differ in them.
    """
    flat = [_flat(yaml.safe_load(run.config) or {}) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings if key.partition(".")[0] not in IGNORED)
    names = [key for key in keys if key.endswith(".name") and _differ(flat, key)]
    labels = []
    for own in flat:
        alike = [other for other in flat if all(other.get(name) == own.get(name) for name in names)]
        more = [key for key in keys if not key.endswith(".name") and _differ(alike, key)]
        words = [str(own.get(key)) for key in names] + [f"{key}={own.get(key)}" for key in more]
        labels.append(", ".join(words) or own["tactic.name"])
    return labels


IGNORED = ("seed", "evaluations", "archive", "references")
"""Settings that make no other search."""


def _differ(flat: Sequence[dict[str, Any]], key: str) -> bool:
    return len({str(settings.get(key)) for settings in flat}) > 1


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}


def table(made: Sequence[Group], best: float) -> list[list[str]]:
    """A header and one row a group: runs, final share of the best, and evaluations to reach each share (quartiles)."""
    heads = ["settings", "runs", "evaluations", "hypervolume, % of best", *(f"to {share:.0%}" for share in SHARES)]
    rows = [heads]
    for group in made:
        final = 100 * group.volumes[:, -1] / best if best else group.volumes[:, -1]
        prices = [_spread(group.price(share * best), "{:.4g}".format) for share in SHARES]
        rows.append([group.label, str(len(group.volumes)), str(group.volumes.shape[1]), _spread(final), *prices])
    return rows


def _spread(values: Float[np.ndarray, " runs"], words: Callable[[float], str] = number) -> str:
    """Median [lower quartile, upper quartile]; a dash where it was not reached."""
    with np.errstate(invalid="ignore"):  # Between two infinite values NumPy finds NaN.
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    told = ["–" if not np.isfinite(value) else words(float(value)) for value in (middle, low, high)]
    return told[0] if len(values) == 1 else f"{told[0]} [{told[1]}, {told[2]}]"


def write_comparison(paths: Sequence[Path], target: Path) -> tuple[Path, list[list[str]]]:
    """Writes comparison.html, comparison.csv and comparison.png into `target`; returns the page's path and the table."""
    runs = [read_run(folder) for folder in run_folders(paths)]
    made, best = groups(runs)
    rows = table(made, best)
    objectives = ", ".join(goal.label for goal in runs[0].objectives)
    figure = comparison_figure(made, best, objectives)
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f".comparison.{os.getpid()}.png"
    figure.savefig(partial, dpi=150)
    os.replace(partial, target / "comparison.png")
    replace_file(target / "comparison.csv", "\n".join(",".join(f'"{c}"' for c in row) for row in rows).encode() + b"\n")
    here = Path(__file__).parent
    page = Template((here / "comparison.html").read_text(encoding="utf-8")).substitute(
        style=(here / "style.css").read_text(encoding="utf-8"),
        objectives=escape(objectives),
        table=_cells(rows),
        curves=_curves(made, best, objectives),
        runs=len(runs),
        version=escape(__version__),
    )
    replace_file(target / "comparison.html", page.encode())
    return target / "comparison.html", rows


def comparison_figure(made: Sequence[Group], best: float, objectives: str) -> Any:
    """Median hypervolume with quartiles against validations, as a share of the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, group in enumerate(made):
        low, middle, high = 100 * group.quartiles() / (best or 1.0)
        steps = np.arange(1, len(middle) + 1)
        colour = SERIES[i % len(SERIES)]
        axes.plot(steps, middle, label=f"{group.label} ({len(group.volumes)} runs)", color=colour, linewidth=1.8)
        axes.fill_between(steps, low, high, alpha=0.16, color=colour, linewidth=0)
    axes.set_xlabel("validations")
    axes.set_ylabel("hypervolume, % of best (median, quartiles)")
    axes.set_title(objectives, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _curves(made: Sequence[Group], best: float, objectives: str) -> str:
    """The same figure as SVG, in the colours of the page."""
    width, height = 760, 440
    curves = [100 * group.quartiles() / (best or 1.0) for group in made]
    x_range = padded(1, max(curve.shape[1] for curve in curves))
    y_range = padded(min(float(curve.min()) for curve in curves), max(float(curve.max()) for curve in curves))
    x_of, y_of = svg.scales(width, height, x_range, y_range)
    drawn = [svg.frame(width, height, x_range, y_range, "validations", "hypervolume, % of best", True)]
    for i, (group, curve) in enumerate(zip(made, curves, strict=True)):
        low, middle, high = ([(float(x), float(y)) for x, y in enumerate(line, 1)] for line in curve)
        title = f"<title>{escape(group.label)}</title>"
        drawn.append(f'<path class="band s{i % len(SERIES)}" d="{svg.path(low + high[::-1], x_of, y_of)}Z">{title}</path>')
        drawn.append(f'<path class="line s{i % len(SERIES)}" d="{svg.path(middle, x_of, y_of)}">{title}</path>')
    words = escape(f"hypervolume for {objectives} against validations: median and quartiles")
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">{"".join(drawn)}</svg>'


def _cells(rows: Sequence[Sequence[str]]) -> str:
    """The table as HTML, each row with the key of its curve."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in rows[0])]
    for i, (label, *cells) in enumerate(rows[1:]):
        key = f'<span class="key s{i % len(SERIES)}"></span> '
        lines.append(f"<td>{key}<span>{escape(label)}</span></td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return "".join(f"<tr>{line}</tr>\n" for line in lines)
