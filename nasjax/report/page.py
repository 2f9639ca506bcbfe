"""The page of a run: one HTML file that loads nothing from elsewhere."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template

from nasjax.host import read_text, replace_file
from nasjax.report.cards import cards
from nasjax.report.data import page_data
from nasjax.report.drawings import DrawingStyle, draw_network, drawing_style
from nasjax.report.figures import hypervolume_chart, scatter
from nasjax.report.formatting import (
    column_heading,
    format_count,
    format_duration,
    format_metric,
    format_number,
    units_of,
)
from nasjax.report.hypervolume import Curve, hypervolume_curve
from nasjax.report.importance import importance_table
from nasjax.report.parallel import parallel_coordinates
from nasjax.report.plots import panels
from nasjax.report.predictors import predictor_errors
from nasjax.runs.reader import Run
from nasjax.words import plural

TEMPLATES = Path(__file__).parent

SCRIPTS = ("run.js", "cards.js", "zoom.js", "filter.js", "tables.js", "files.js")
"""The parts of the page's script, which are one."""

LARGEST_FILE = 2_000_000
"""The most characters of a table that the page has a copy of."""


def write_page(run: Run, folder: Path) -> Path:
    """Writes report.html into a folder, atomically; returns its path."""
    path = Path(folder) / "report.html"
    replace_file(path, page(run).encode("utf-8", errors="replace"))
    return path


def page(run: Run) -> str:
    """The page as HTML; every text of the run is escaped."""
    summary = run.summary
    task = f" on {summary['task']}" if summary["task"] else ""
    objectives = ", ".join(objective.label for objective in run.objectives)
    within = f", within {' and '.join(limits)}" if (limits := summary.get("constraints")) else ""
    plots, style = panels(run), drawing_style(run.space)
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    curve = hypervolume_curve(run)
    return Template((TEMPLATES / "page.html").read_text(encoding="utf-8")).substitute(
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        # The content security policy allows this script and no other.
        digest=b64encode(sha256(script.encode()).digest()).decode(),
        title=escape(f"{summary['supernet']}{task}"),
        searched=escape(f"Searched for {objectives}{within}; tactic {summary['tactic']}, seed {summary['seed']}."),
        facts=_facts(run, curve),
        warning=f'<p class="warning">{escape(warning)}</p>' if (warning := summary.get("warning")) else "",
        front_title="Best so far" if len(run.objectives) == 1 else "Front",
        layout="one" if len(plots) == 1 else "several",
        panels="".join(scatter(run, panel, len(plots)) for panel in plots),
        legend=_legend(run),
        parallel=parallel_coordinates(run),
        hypervolume=hypervolume_chart(run, curve),
        explanation=escape(curve.explanation),
        reference=escape(_reference(run)),
        predictors=predictor_errors(run),
        importance=importance_table(run),
        tests="<p>Columns test_… are measured on test data, which the search never saw.</p>" if run.tests else "",
        cards=cards(run, style),
        data=escape(page_data(run, style), quote=False),
        files="".join(_file(run, name) for name in ("pareto.csv", "evaluations.csv")),
        provenance=_provenance(run),
        table=_table(run, style),
        times=_times(summary["seconds"]),
        config=escape(run.config),
        version=escape(summary["version"]),
        folder=escape(str(run.folder)),
    )


def _facts(run: Run, curve: Curve) -> str:
    summary = run.summary
    facts = {
        "evaluations": str(summary["evaluations"]),
        "failed": str(summary["failed"]),
        **({"outside the constraints": str(summary["infeasible"])} if summary.get("constraints") else {}),
        "from archive": str(summary["from_archive"]),
        "on the front": str(len(run.front)),
        "search space": f"{plural(format_count(summary['space_size']), 'network')}, {plural(len(summary['genes']), 'gene')}",
    }
    if run.hypervolume:
        share = curve.label != "hypervolume"
        reached = f"{curve.values[-1]:.1f} % of the front's box" if share else format_number(curve.values[-1])
        facts["hypervolume"] = f'<span title="{run.hypervolume[-1]:.6g}">{escape(reached)}</span>'
    if "total" in summary["seconds"]:
        facts["time"] = format_duration(summary["seconds"]["total"])
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())


def _reference(run: Run) -> str:
    """The hypervolume that was reached, and its reference point."""
    reached = f", {format_number(run.hypervolume[-1])} at the end," if run.hypervolume else ""
    point = ", ".join(f"{o.name} = {format_number(o.reference)} {o.unit}".strip() for o in run.objectives)
    return f"The hypervolume{reached} is measured from the reference point {point}."


def _legend(run: Run) -> str:
    if not run.front:
        return "No network could be measured."
    best, behind = ("front", "dominated") if len(run.objectives) > 1 else ("best", "not the best")
    bars = "; bars are standard errors" if any(network.errors for network in run.front) else ""
    more = (
        f" The first three of {len(run.objectives)} objectives are shown, all of them below."
        if len(run.objectives) > 3
        else ""
    )
    return (
        f'<span class="key" style="background:var(--front)"></span> {best}{bars} &nbsp; '
        f'<span class="key" style="background:var(--cloud);opacity:.6"></span> {behind}, paler where evaluated earlier. '
        f"Point at a network to see it, click to keep it; arrow keys go from point to point.{more}"
    )


def _table(run: Run, style: DrawingStyle) -> str:
    """The front as a table: one network a row, with a small drawing."""
    if not run.front:
        return "<p>None.</p>"
    units = units_of(run.objectives)
    names = [*(objective.name for objective in run.objectives), *run.tests]
    headings = ["index", *(column_heading(name, units) for name in names)]
    heads = "".join(f'<th><button type="button" class="sort">{escape(heading)}</button></th>' for heading in headings)
    rows = []
    for network in run.front:
        cells = "".join(
            f'<td title="{network.metrics.get(name, "")}">{format_metric(network.metrics, network.errors, name)}</td>'
            for name in names
        )
        index = f'<a href="#card-{network.index}">{network.index}</a>'
        rows.append(
            f'<tr id="network-{network.index}" data-index="{network.index}"><td>{index}</td>{cells}'
            f'<td class="drawn">{draw_network(run.space, style, network.genes, small=True)}</td></tr>'
        )
    body = "\n".join(rows)
    return (
        f'<table class="front"><thead><tr>{heads}<th class="drawn">network</th></tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _file(run: Run, name: str) -> str:
    """Buttons that copy and save a table of the run, whose text is in the page; nothing for one that would make it heavy,
    nor while the search runs."""
    if not run.finished:
        return ""
    text = read_text(run.folder / name)
    if len(text) > LARGEST_FILE:
        return ""
    buttons = "".join(f'<button type="button" data-{action}="{name}">{action}</button>' for action in ("copy", "save"))
    return f'<p class="actions">{name} {buttons}</p><pre hidden id="{name}">{escape(text)}</pre>'


def _provenance(run: Run) -> str:
    """When, by what and where the search was made, as far as its summary says."""
    made = {"nasjax": run.summary["version"], **(run.summary.get("made") or {}), "folder": str(run.folder)}
    rows = (f"<tr><th>{escape(str(what))}</th><td>{escape(str(value))}</td></tr>" for what, value in made.items() if value)
    return f'<table class="times"><tbody>{"".join(rows)}</tbody></table>'


def _times(seconds: dict[str, float]) -> str:
    # The total is that of the last session only: parts of a resumed run may be longer.
    total = max([seconds.get("total") or sum(seconds.values()), *seconds.values()]) or 1.0
    rows = (
        f"<tr><th>{escape(part)}</th><td>{format_duration(spent)}</td><td>{100 * spent / total:.0f} %</td>"
        f'<td class="share"><span style="width:{min(100.0, 100 * spent / total):.1f}%"></span></td></tr>'
        for part, spent in sorted(seconds.items(), key=lambda item: -item[1])
    )
    return f'<table class="times"><tbody>{"".join(rows)}</tbody></table>'
