"""Several runs beside each other: the same settings under different seeds are one curve with quartiles."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from nasjax.pareto import hypervolume_exact, hypervolumes
from nasjax.report.run_folder import Run, number, read_run
from nasjax.runs import replace_file

SHARES = (0.90, 0.95, 0.99)
"""Shares of the best hypervolume whose price in evaluations is told."""


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
    """The run folders among the paths and right below them. Raises ValueError where a path holds none."""
    found = []
    for path in paths:
        inside = [path] if (path / "summary.json").is_file() else sorted(p.parent for p in path.glob("*/summary.json"))
        if not inside:
            raise ValueError(f"{path} is not a run folder and holds no finished run")
        found += inside
    return found


def groups(runs: Sequence[Run]) -> tuple[list[Group], float]:
    """The runs by settings, and the best hypervolume: that of all their networks together.

    The reference point is common: the worst of the runs' own in each objective. Raises ValueError for different objectives.
    """
    goals = [(goal.name, goal.direction) for goal in runs[0].objectives]
    for run in runs:
        if [(goal.name, goal.direction) for goal in run.objectives] != goals:
            raise ValueError(f"{run.folder} and {runs[0].folder} have other objectives: they cannot be compared")
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
    """Per run, the settings in which the runs differ, but for seed and budget."""
    flat = [_flat(yaml.safe_load(run.config) or {}) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    differing = [k for k in keys if k not in ("seed", "evaluations") and len({str(s.get(k)) for s in flat}) > 1]
    names = [key for key in differing if key.endswith(".name")] or differing
    return [", ".join(str(settings.get(key)) for key in names) or settings["tactic.name"] for settings in flat]


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
        prices = [_spread(group.price(share * best)) for share in SHARES]
        rows.append([group.label, str(len(group.volumes)), str(group.volumes.shape[1]), _spread(final), *prices])
    return rows


def _spread(values: Float[np.ndarray, " runs"]) -> str:
    """Median [lower quartile, upper quartile]; a dash where it was not reached."""
    low, middle, high = (np.sort(values)[round(q * (len(values) - 1))] for q in (0.25, 0.5, 0.75))
    words = ["–" if np.isinf(value) else number(float(value)) for value in (middle, low, high)]
    return words[0] if len(values) == 1 else f"{words[0]} [{words[1]}, {words[2]}]"


def write_comparison(paths: Sequence[Path], target: Path) -> tuple[Path, list[list[str]]]:
    """Writes comparison.html, comparison.csv and comparison.png into `target`; returns the page's path and the table."""
    runs = [read_run(folder) for folder in run_folders(paths)]
    made, best = groups(runs)
    rows = table(made, best)
    figure = comparison_figure(made, best, ", ".join(goal.label for goal in runs[0].objectives))
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f".comparison.{os.getpid()}.png"
    figure.savefig(partial, dpi=150)
    os.replace(partial, target / "comparison.png")
    replace_file(target / "comparison.csv", "\n".join(",".join(f'"{c}"' for c in row) for row in rows).encode() + b"\n")
    cells = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>\n"
        for row, tag in zip(rows, ["th"] + ["td"] * len(made), strict=True)
    )
    page = Template((Path(__file__).parent / "comparison.html").read_text(encoding="utf-8")).substitute(
        table=cells, svg=_svg(figure), runs=len(runs)
    )
    replace_file(target / "comparison.html", page.encode())
    return target / "comparison.html", rows


def comparison_figure(made: Sequence[Group], best: float, objectives: str) -> Any:
    """Median hypervolume with quartiles against validations, as a share of the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for group in made:
        low, middle, high = 100 * group.quartiles() / (best or 1.0)
        steps = np.arange(1, len(middle) + 1)
        (line,) = axes.plot(steps, middle, label=f"{group.label} ({len(group.volumes)} runs)", linewidth=1.8)
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel("validations")
    axes.set_ylabel("hypervolume, % of best (median, quartiles)")
    axes.set_title(objectives, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _svg(figure: Any) -> str:
    """The figure as SVG without its XML head, to stand inside a page."""
    import io

    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
