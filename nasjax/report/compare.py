"""The page of a comparison of several runs: those that differ only in their seed become one curve with quartiles."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from nasjax.host import replace_file
from nasjax.objectives import Objective
from nasjax.report.colours import group_colours
from nasjax.report.comparison_figures import curves_figure, front_panels, fronts_figure, legend, svg_curves, svg_fronts
from nasjax.report.comparison_tables import (
    LEAST_SEEDS,
    comparison_numbers,
    comparison_table,
    most_common_seeds,
    significance_table,
)
from nasjax.report.groups import RunGroup, each_seed_once, group_runs
from nasjax.report.page import TEMPLATES
from nasjax.report.traces import Trace, read_traces, run_folders
from nasjax.runs.folder import write_table
from nasjax.version import __version__
from nasjax.words import plural


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs that were compared: `best` is the hypervolume of all their networks together.

    `remarks` has a sentence on each run that was left out.
    """

    groups: tuple[RunGroup, ...]
    best: float
    objectives: tuple[Objective, ...]
    remarks: tuple[str, ...]

    @property
    def searched_for(self) -> str:
        """The objectives as words."""
        return ", ".join(objective.label for objective in self.objectives)


def compare(runs: Sequence[Trace]) -> Comparison:
    """The runs grouped by settings, each seed once. Raises ConfigError as `group_runs` does."""
    kept, remarks = each_seed_once(runs)
    groups, best = group_runs(kept)
    return Comparison(tuple(groups), best, kept[0].objectives, tuple(remarks))


def write_comparison(paths: Sequence[Path], target: Path) -> tuple[Path, list[list[str]], list[str]]:
    """Writes comparison.html, comparison.csv, comparison.png and, with several objectives, comparison-fronts.png into the
    folder `target`; or `target` itself where it is a name.html, and beside it name.csv, name.png and name-fronts.png.

    Returns the page's path, the table, and a remark on each run that was left out (see `each_seed_once`).
    Raises ConfigError as `run_folders`, `read_traces` and `group_runs` do.
    """
    found = compare(read_traces(run_folders(paths)))
    place = target if target.suffix == ".html" and not target.is_dir() else target / "comparison.html"
    place.parent.mkdir(parents=True, exist_ok=True)
    figures = {f"{place.stem}.png": curves_figure(found.groups, found.best, found.searched_for)}
    if panels := front_panels(found.groups, found.objectives):
        figures[f"{place.stem}-fronts.png"] = fronts_figure(found.groups, panels)
    for name, figure in figures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150)
        replace_file(place.with_name(name), content.getvalue())
    write_table(place.with_suffix(".csv"), *comparison_numbers(found.groups, found.best))

    def address(run: Path) -> str | None:
        page = run / "report.html"
        return quote(os.path.relpath(page, place.parent)) if page.is_file() else None

    replace_file(place, comparison_page(found, address).encode())
    return place, comparison_table(found.groups, found.best), list(found.remarks)


def comparison_page(found: Comparison, address: Callable[[Path], str | None]) -> str:
    """The page as HTML; `address` has the page of a run folder, None where there is none."""
    groups, best = found.groups, found.best
    return Template((TEMPLATES / "comparison.html").read_text(encoding="utf-8")).substitute(
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        objectives=escape(found.searched_for),
        table=_rows(comparison_table(groups, best), group_colours([group.label for group in groups])),
        curves=svg_curves(groups, best, found.searched_for),
        legend=legend(groups),
        fronts=_fronts(found),
        runs=plural(sum(len(group.volumes) for group in groups), "run"),
        tested=_tested(groups, best),
        folders=_links(groups, address),
        remarks="".join(f"<p>{escape(remark)}.</p>" for remark in found.remarks),
        version=escape(__version__),
    )


def _fronts(found: Comparison) -> str:
    """The section of fronts; nothing with one objective."""
    panels = front_panels(found.groups, found.objectives)
    if not panels:
        return ""
    about = "Each front is that of all networks of a group's runs together"
    if len(found.objectives) == 2:
        about += "; those of single runs are faint, where there are several" * any(map(any, panels[0].faint))
    else:
        about += ", in all objectives; it is shown in pairs of the first three" if len(found.objectives) > 3 else ""
    drawn = "".join(svg_fronts(found.groups, panel, len(panels)) for panel in panels)
    kind = "compared" if len(panels) == 1 else "pairs"
    return (
        f'<h2>Fronts</h2>\n<figure class="{kind}" id="fronts">\n<div class="panels">{drawn}</div>\n'
        f'<figcaption><p class="legend">{legend(found.groups)}</p>{about}.</figcaption>\n</figure>'
    )


def _tested(groups: Sequence[RunGroup], best: float) -> str:
    """The section on significance; nothing of a single group."""
    if len(groups) < 2:
        return ""
    rows = significance_table(groups, best)
    if len(rows) < 2:
        there = f"there {'is' if (most := most_common_seeds(groups)) == 1 else 'are'} {most}"
        return f"<h2>Significance</h2>\n<p>No test: it needs {LEAST_SEEDS} common seeds, {there}.</p>"
    return (
        "<h2>Significance</h2>\n<p>Wilcoxon's signed-rank test over the seeds that two have in common, two-sided; p-values "
        f'adjusted by Holm\'s method.</p>\n<div class="scroll"><table class="prices">\n{_rows(rows)}</table></div>'
    )


def _links(groups: Sequence[RunGroup], address: Callable[[Path], str | None]) -> str:
    """The runs of every group, with links to their pages where they have one."""

    def link(run: Path) -> str:
        page, name = address(run), escape(run.name)
        return name if page is None else f'<a href="{page}">{name}</a>'

    lines = (
        f"<div><dt>{escape(g.label)}</dt><dd>{' '.join(map(link, dict.fromkeys(g.folders)))}</dd></div>" for g in groups
    )
    return f"<details><summary>All runs</summary><dl>{''.join(lines)}</dl></details>"


def _rows(rows: Sequence[Sequence[str]], colours: Sequence[int] = ()) -> str:
    """A table as HTML rows, the first of which is the header; with `colours`, each of the others has that of its curve."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in rows[0])]
    for i, (first, *cells) in enumerate(rows[1:]):
        key = f'<span class="key s{colours[i]}"></span> ' if colours else ""
        lines.append(f"<td>{key}<span>{escape(first)}</span></td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return "".join(f"<tr>{line}</tr>\n" for line in lines)
