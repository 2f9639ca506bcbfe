"""Comparison of several runs: those that differ only in their seed become one curve with quartiles."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.host import replace_file
from nasjax.pareto import hypervolume_exact, hypervolumes
from nasjax.report import svg
from nasjax.report.formatting import format_number
from nasjax.report.plots import padded
from nasjax.runs.folder import flatten_settings, parse_settings, write_table
from nasjax.runs.reader import Run, read_run
from nasjax.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.90, 0.95, 0.99)
"""Shares of the best hypervolume: the table says how many evaluations reach each."""

LEAST_SEEDS = 6
"""The fewest seeds that two groups must have in common to be tested: with fewer no p-value is below .05."""

COLOURS = ("#2f74b5", "#c2410c", "#2a8c6e", "#8250c4", "#b8860b", "#c2397a", "#59636e", "#1b9aaa")
"""Colours of the curves, s0 to s7 of the style sheet; a ninth curve takes the first again."""

IGNORED_SETTINGS = ("seed", "archive", "evaluator.file")
"""Settings in which runs of one group may differ: the seed, and files that no value depends on."""


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs with the same settings but for `IGNORED_SETTINGS`.

    `volumes` has the hypervolume of each run after each evaluation; all have as many. `seeds` and `folders` are the runs'.
    """

    label: str
    volumes: Float[np.ndarray, "runs evaluations"]
    seeds: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def quartiles(self) -> Float[np.ndarray, "3 evaluations"]:
        """Lower quartile, median and upper quartile after each evaluation."""
        return np.quantile(self.volumes, (0.25, 0.5, 0.75), axis=0)

    def evaluations_to_reach(self, volume: float) -> Float[np.ndarray, " runs"]:
        """Evaluations until each run has a hypervolume of `volume`; infinite where it never has."""
        reached = self.volumes >= volume
        return np.where(reached.any(1), reached.argmax(1) + 1.0, np.inf)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The finished runs among the paths, and directly below those that are no runs.

    Raises ConfigError for a path that is not a finished run and contains none.
    """
    folders = []
    for path in paths:
        inside = [path] if (path / "summary.json").is_file() else sorted(p.parent for p in path.glob("*/summary.json"))
        if not inside:
            raise ConfigError(f"{path} is not a run folder and holds no finished run")
        folders += inside
    return folders


def group_runs(runs: Sequence[Run]) -> tuple[list[RunGroup], float]:
    """The runs grouped by settings, and the best hypervolume: that of the networks of all runs together.

    Hypervolumes have a common reference point: in each objective the worst of the runs' own. Raises ConfigError for runs
    with different objectives.
    """
    objectives = [(objective.name, objective.direction) for objective in runs[0].objectives]
    for run in runs:
        if [(objective.name, objective.direction) for objective in run.objectives] != objectives:
            raise ConfigError(f"{run.folder} and {runs[0].folder} have other objectives: they cannot be compared")
    signs = np.array([objective.sign for objective in runs[0].objectives], np.float64)
    reference = np.max([signs * [objective.reference for objective in run.objectives] for run in runs], axis=0)
    values = [_objective_values(run, signs) for run in runs]
    labels = _labels(runs)
    groups = []
    for label in dict.fromkeys(labels):
        rows = [i for i, other in enumerate(labels) if other == label]
        curves = np.array([hypervolumes(values[i], reference) for i in rows])
        seeds = tuple(str(_settings(runs[i]).get("seed")) for i in rows)
        groups.append(RunGroup(label, curves, seeds, tuple(runs[i].folder for i in rows)))
    return groups, hypervolume_exact(np.concatenate(values), reference)


def each_seed_once(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs without those that repeat another with the same settings and seed, and a remark on each left out."""
    kept: dict[tuple[str, str], Run] = {}
    remarks = []
    for run, label in zip(runs, _labels(runs), strict=True):
        first = kept.setdefault((label, str(_settings(run).get("seed"))), run)
        if first is not run:
            remarks.append(f"{run.folder} is left out: it has the settings and the seed of {first.folder}")
    return list(kept.values()), remarks


def _objective_values(run: Run, signs: Float[np.ndarray, " obj"]) -> Float[np.ndarray, "pop obj"]:
    """The objectives of a run's networks, minimised; NaN where one failed."""
    names = [objective.name for objective in run.objectives]
    rows = [[n.metrics[name] for name in names] if not n.failed else [np.nan] * len(names) for n in run.evaluations]
    return np.array(rows, np.float64).reshape(-1, len(names)) * signs


def _labels(runs: Sequence[Run]) -> list[str]:
    """A label for each run: the settings in which it differs from others, but for `IGNORED_SETTINGS`.

    Names (of the tactic, algorithm…) come first; other settings follow where runs with the same names differ in them.
    """
    settings = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for flat in settings for key in flat if key not in IGNORED_SETTINGS)
    names = [key for key in keys if key.endswith(".name") and _differ(settings, key)]
    labels = []
    for flat in settings:
        same_names = [other for other in settings if all(other.get(name) == flat.get(name) for name in names)]
        others = [key for key in keys if not key.endswith(".name") and _differ(same_names, key)]
        parts = [str(flat.get(key)) for key in names] + [f"{key}={flat.get(key)}" for key in others]
        labels.append(", ".join(parts) or flat["tactic.name"])
    return labels


def _settings(run: Run) -> dict[str, Any]:
    """The settings in config.yaml by their dotted names; `evaluations` says "10 of 32" of a run that ended early."""
    flat = flatten_settings(parse_settings(run.config))
    done, planned = len(run.evaluations), flat.get("evaluations")
    return flat | {"evaluations": planned if done == planned else f"{done} of {planned}"}


def _differ(settings: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({str(flat.get(key)) for flat in settings}) > 1


def comparison_table(groups: Sequence[RunGroup], best: float) -> list[list[str]]:
    """A header and a row for each group: runs, evaluations, final hypervolume in % of `best`, evaluations to each share.

    Values of several runs are "median [lower quartile, upper quartile]".
    """
    rows = [["settings", "runs", "evaluations", "hypervolume, % of best", *(f"to {share:.0%}" for share in SHARES)]]
    for group in groups:
        final = 100 * group.volumes[:, -1] / best if best else group.volumes[:, -1]
        needed = [_format_quartiles(group.evaluations_to_reach(share * best), "{:.4g}".format) for share in SHARES]
        runs, evaluations = group.volumes.shape
        rows.append([group.label, str(runs), str(evaluations), _format_quartiles(final), *needed])
    return rows


def comparison_numbers(groups: Sequence[RunGroup], best: float) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the same table in numbers: median, lower and upper quartile in columns of their own.

    What was not reached is None.
    """
    names = ["hypervolume_percent", *(f"evaluations_to_{100 * share:.0f}_percent" for share in SHARES)]
    header = ["settings", "runs", "evaluations"]
    header += [f"{name}{part}" for name in names for part in ("", "_lower", "_upper")]
    rows = []
    for group in groups:
        columns = [100 * group.volumes[:, -1] / (best or 1.0)]
        columns += [group.evaluations_to_reach(share * best) for share in SHARES]
        with np.errstate(invalid="ignore"):  # NumPy interpolates two infinities as NaN.
            numbers = [float(np.quantile(column, q)) for column in columns for q in (0.5, 0.25, 0.75)]
        rows.append([group.label, *group.volumes.shape, *(n if np.isfinite(n) else None for n in numbers)])
    return header, rows


def significance_table(groups: Sequence[RunGroup], best: float) -> list[list[str]]:
    """A header and a row for every two groups with LEAST_SEEDS seeds in common: median difference and p-value.

    Wilcoxon's signed-rank test of the hypervolumes of equal seeds, after as many evaluations as both have; p-values are
    adjusted for the number of comparisons by Holm's method. Only the header where there are no such groups.
    """
    pairs = []
    for one, other in combinations(groups, 2):
        seeds = [seed for seed in one.seeds if seed in other.seeds]
        if len(seeds) < LEAST_SEEDS:
            continue
        last = min(one.volumes.shape[1], other.volumes.shape[1]) - 1
        first, second = (group.volumes[[group.seeds.index(seed) for seed in seeds], last] for group in (one, other))
        difference = 100 * (first - second) / (best or 1.0)
        pairs.append((one.label, other.label, len(seeds), last + 1, difference))
    tested = [_signed_rank(difference) for *_, difference in pairs]
    rows = [["first", "second", "seeds", "after evaluations", "median difference, % of best", "p (Holm)"]]
    for (one, other, seeds, after, difference), p in zip(pairs, holm(tested), strict=True):  # type: ignore[assignment]
        rows.append([one, other, str(seeds), str(after), f"{np.median(difference):+.3g}", f"{p:.3g}"])  # type: ignore[list-item]
    return rows


def _signed_rank(differences: Float[np.ndarray, " seeds"]) -> float:
    """The p-value of Wilcoxon's signed-rank test, two-sided; 1 where nothing differs."""
    from scipy.stats import wilcoxon  # Takes a second.

    return float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for as many comparisons, in their order (Holm 1979)."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(np.argsort(values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted


def _format_quartiles(values: Float[np.ndarray, " runs"], text: Callable[[float], str] = format_number) -> str:
    """Median [lower quartile, upper quartile], as text; a dash for what is not finite."""
    with np.errstate(invalid="ignore"):  # NumPy interpolates two infinities as NaN.
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    low, median, high = ("–" if not np.isfinite(value) else text(float(value)) for value in (low, median, high))
    return median if len(values) == 1 else f"{median} [{low}, {high}]"


def write_comparison(paths: Sequence[Path], target: Path) -> tuple[Path, list[list[str]], list[str]]:
    """Writes comparison.html, comparison.csv and comparison.png into the folder `target`, or `target` itself where it is a
    name.html, and beside it name.csv and name.png.

    Returns the page's path, the table, and a remark on each run that was left out (see `each_seed_once`).
    Raises ConfigError as `run_folders`, `read_run` and `group_runs` do.
    """
    runs, remarks = each_seed_once([read_run(folder) for folder in run_folders(paths)])
    groups, best = group_runs(runs)
    rows = comparison_table(groups, best)
    objectives = ", ".join(objective.label for objective in runs[0].objectives)
    figure = comparison_figure(groups, best, objectives)
    place = target if target.suffix == ".html" and not target.is_dir() else target / "comparison.html"
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.stem}.{os.getpid()}.png")
    figure.savefig(partial, dpi=150)
    os.replace(partial, place.with_suffix(".png"))
    write_table(place.with_suffix(".csv"), *comparison_numbers(groups, best))
    tested = significance_table(groups, best)
    templates = Path(__file__).parent
    page = Template((templates / "comparison.html").read_text(encoding="utf-8")).substitute(
        style=(templates / "style.css").read_text(encoding="utf-8"),
        objectives=escape(objectives),
        table=_html_rows(rows),
        curves=_svg_curves(groups, best, objectives),
        runs=len(runs),
        tested=_tested(tested),
        folders=_links(groups, place.parent),
        remarks="".join(f"<p>{escape(remark)}.</p>" for remark in remarks),
        version=escape(__version__),
    )
    replace_file(place, page.encode())
    return place, rows, remarks


def _tested(rows: Sequence[Sequence[str]]) -> str:
    """The section on significance; nothing without comparisons."""
    if len(rows) < 2:
        return ""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in rows[0])]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows[1:]]
    table = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return (
        "<h2>Significance</h2>\n<p>Wilcoxon's signed-rank test over the seeds that two have in common, two-sided; p-values "
        f'adjusted by Holm\'s method.</p>\n<div class="scroll"><table class="prices">\n{table}</table></div>'
    )


def _links(groups: Sequence[RunGroup], folder: Path) -> str:
    """The runs of every group, with links to their pages from `folder` where they have one."""

    def link(run: Path) -> str:
        page = run / "report.html"
        name = escape(run.name)
        return f'<a href="{quote(os.path.relpath(page, folder))}">{name}</a>' if page.is_file() else name

    lines = (f"<div><dt>{escape(g.label)}</dt><dd>{' '.join(map(link, g.folders))}</dd></div>" for g in groups)
    return f"<details><summary>All runs</summary><dl>{''.join(lines)}</dl></details>"


def comparison_figure(groups: Sequence[RunGroup], best: float, objectives: str) -> "Figure":
    """Median hypervolume with quartiles after each evaluation, in % of `best`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, group in enumerate(groups):
        low, median, high = 100 * group.quartiles() / (best or 1.0)
        steps = np.arange(1, len(median) + 1)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(steps, median, label=f"{group.label} ({len(group.volumes)} runs)", color=colour, linewidth=1.8)
        axes.fill_between(steps, low, high, alpha=0.16, color=colour, linewidth=0)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("hypervolume, % of best (median, quartiles)")
    axes.set_title(objectives, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _svg_curves(groups: Sequence[RunGroup], best: float, objectives: str) -> str:
    """The same figure as SVG, coloured by the style sheet."""
    width, height = 760, 440
    curves = [100 * group.quartiles() / (best or 1.0) for group in groups]
    x_range = padded(1, max(curve.shape[1] for curve in curves))
    y_range = padded(min(float(curve.min()) for curve in curves), max(float(curve.max()) for curve in curves))
    x_of, y_of = svg.scales(width, height, x_range, y_range)
    parts = [svg.frame(width, height, x_range, y_range, "evaluations", "hypervolume, % of best", True)]
    for i, (group, curve) in enumerate(zip(groups, curves, strict=True)):
        low, median, high = ([(float(x), float(y)) for x, y in enumerate(line, 1)] for line in curve)
        title = f"<title>{escape(group.label)}</title>"
        colour = f"s{i % len(COLOURS)}"
        parts.append(f'<path class="band {colour}" d="{svg.path(low + high[::-1], x_of, y_of)}Z">{title}</path>')
        parts.append(f'<path class="line {colour}" d="{svg.path(median, x_of, y_of)}">{title}</path>')
    label = escape(f"hypervolume for {objectives} against evaluations: median and quartiles")
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _html_rows(rows: Sequence[Sequence[str]]) -> str:
    """The table as HTML rows, each with the colour of its curve."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in rows[0])]
    for i, (label, *cells) in enumerate(rows[1:]):
        key = f'<span class="key s{i % len(COLOURS)}"></span> '
        lines.append(f"<td>{key}<span>{escape(label)}</span></td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return "".join(f"<tr>{line}</tr>\n" for line in lines)
