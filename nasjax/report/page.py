"""One page about a run: a single HTML file that needs no network, drawn as plain SVG."""

from decimal import Decimal
from html import escape
from pathlib import Path
from string import Template

from nasjax.report.plots import Panel, Point, Range, padded, panels, ticks
from nasjax.report.run_folder import Network, Run, architecture, number
from nasjax.report.terminal import measured, titled
from nasjax.runs import replace_file

LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 46


def write_page(run: Run, folder: Path) -> Path:
    """Write report.html into a folder, whole or not at all, and return its path."""
    path = Path(folder) / "report.html"
    replace_file(path, page(run).encode("utf-8", errors="replace"))
    return path


def page(run: Run) -> str:
    """The page as HTML; every text of the run is escaped."""
    summary = run.summary
    of = f" on {summary['task']}" if summary["task"] else ""
    objectives = ", ".join(objective.label for objective in run.objectives)
    return Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{summary['supernet']}{of}"),
        searched=escape(f"Searched for {objectives}; tactic {summary['tactic']}, seed {summary['seed']}."),
        facts=_facts(run),
        front_title="Best so far" if len(run.objectives) == 1 else "Front",
        panels="".join(_front(run, panel, len(panels(run))) for panel in panels(run)),
        legend=_legend(run),
        hypervolume=_hypervolume(run),
        reference=escape(
            "After each validation, measured from the reference point "
            + ", ".join(f"{o.name} = {number(o.reference)} {o.unit}".strip() for o in run.objectives)
            + "."
        ),
        tests="<p>Columns test_… are quality on test data, which the search never saw.</p>" if run.tests else "",
        table=_table(run),
        times=_times(summary["seconds"]),
        config=escape(run.config),
        version=escape(summary["version"]),
        folder=escape(str(run.folder)),
    )


def _facts(run: Run) -> str:
    summary = run.summary
    facts = {
        "evaluations": str(summary["evaluations"]),
        "failed": str(summary["failed"]),
        "from archive": str(summary["from_archive"]),
        "on the front": str(len(run.front)),
        "search space": f"{_large(summary['space_size'])} networks, {len(summary['genes'])} genes",
    }
    if run.hypervolume:
        facts["hypervolume"] = number(run.hypervolume[-1])
    if "total" in summary["seconds"]:
        facts["time"] = _duration(summary["seconds"]["total"])
    return "".join(f"<div><dt>{name}</dt><dd>{words}</dd></div>" for name, words in facts.items())


def _legend(run: Run) -> str:
    if not run.front:
        return "No network could be measured."
    best, behind = ("front", "dominated") if len(run.objectives) > 1 else ("best", "not the best")
    bars = "; bars are standard errors" if any(network.errors for network in run.front) else ""
    more = f" The first three of {len(run.objectives)} objectives are shown." if len(run.objectives) > 3 else ""
    return (
        f'<span class="key" style="background:var(--front)"></span> {best}{bars} &nbsp; '
        f'<span class="key" style="background:var(--cloud);opacity:.6"></span> {behind}, paler where evaluated earlier. '
        f"Point at a network for its numbers, click on one of the front for its row.{more}"
    )


def _front(run: Run, panel: Panel, count: int) -> str:
    """One scatter. Every measured network is one circle with its index in `data-index`."""
    width, height = (900, 430) if count == 1 else (370, 330)
    best = {network.index: network for network in run.front}
    x_of, y_of = _scales(width, height, panel.x_range, panel.y_range)
    behind, before = [], []
    if panel.corners:
        behind.append(f'<path class="stairs" d="{_path(panel.corners, x_of, y_of)}"/>')
    circles = []
    for order, network in enumerate(run.evaluations):
        if network.index not in panel.places:
            continue
        x, y = panel.places[network.index]
        x, y = x_of(x), y_of(y)
        title = f"<title>{escape(_tooltip(run, best.get(network.index, network)))}</title>"
        if network.index in best:
            errors = best[network.index].errors
            dx = x_of(panel.places[network.index][0] + errors.get(panel.x.name, 0.0)) - x if panel.x else 0.0
            dy = y_of(panel.places[network.index][1] + errors.get(panel.y.name, 0.0)) - y
            bars = (f"M{x - dx:.1f} {y:.1f}h{2 * dx:.1f}" if dx else "") + (
                f"M{x:.1f} {y - dy:.1f}v{2 * dy:.1f}" if dy else ""
            )
            before.append(f'<path class="bars" d="{bars}"/>' if bars else "")
            before.append(
                f'<a href="#network-{network.index}"><circle class="point front" data-index="{network.index}" '
                f'cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle></a>'
            )
        else:
            strength = 0.18 + 0.5 * order / max(1, len(run.evaluations) - 1)
            circles.append(
                f'<circle class="point dominated" data-index="{network.index}" cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
                f'fill-opacity="{strength:.2f}">{title}</circle>'
            )
    label = panel.x.label if panel.x else "validations"
    frame = _frame(width, height, panel.x_range, panel.y_range, label, panel.y.label, panel.x is None)
    words = escape(f"{panel.y.name} against {panel.x.name if panel.x else 'validations'}, {len(panel.places)} networks")
    inside = "\n".join([frame, *circles, *behind, *before])
    return f'<svg class="scatter" viewBox="0 0 {width} {height}" role="img" aria-label="{words}">\n{inside}\n</svg>'


def _hypervolume(run: Run) -> str:
    width, height, count = 900, 280, len(run.hypervolume)
    x_range = padded(1, count)
    y_range = padded(min(run.hypervolume, default=0.0), max(run.hypervolume, default=1.0))
    x_of, y_of = _scales(width, height, x_range, y_range)
    points = list(enumerate(run.hypervolume, 1))
    line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
    circles = "\n".join(
        f'<circle class="validation{" last" if x == count else ""}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4">'
        f"<title>after {x} validations: {number(y)}</title></circle>"
        for x, y in points
    )
    frame = _frame(width, height, x_range, y_range, "validations", "hypervolume", True)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="hypervolume against validations">\n{frame}\n'
        f'<polyline class="curve" points="{line}"/>\n{circles}\n</svg>'
    )


def _table(run: Run) -> str:
    if not run.front:
        return "<p>None.</p>"
    units = {objective.name: objective.unit for objective in run.objectives}
    names = [*units, *run.tests]
    heads = "".join(f"<th>{escape(words)}</th>" for words in ["index", *(titled(name, units) for name in names)])
    rows = []
    for network in run.front:
        cells = "".join(
            f'<td title="{network.metrics.get(name, "")}">{measured(network.metrics, network.errors, name)}</td>'
            for name in names
        )
        genes = " ".join(f"<code>{escape(f'{name}={value}')}</code>" for name, value in network.genes.items())
        short = escape(architecture(network, run.summary["genes"]))
        rows.append(
            f'<tr id="network-{network.index}"><td>{network.index}</td>{cells}<td class="words"><details>'
            f"<summary><code>{short}</code></summary>{genes}</details></td></tr>"
        )
    body = "\n".join(rows)
    return (
        f'<table class="front"><thead><tr>{heads}<th class="words">architecture</th></tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _times(seconds: dict[str, float]) -> str:
    whole = seconds.get("total") or sum(seconds.values()) or 1.0
    rows = (
        f"<tr><th>{escape(part)}</th><td>{_duration(spent)}</td><td>{100 * spent / whole:.0f} %</td>"
        f'<td class="share"><span style="width:{min(100.0, 100 * spent / whole):.1f}%"></span></td></tr>'
        for part, spent in sorted(seconds.items(), key=lambda item: -item[1])
    )
    return f'<table class="times"><tbody>{"".join(rows)}</tbody></table>'


def _tooltip(run: Run, network: Network) -> str:
    """The index of a network and all that was measured of it, a line each."""
    units = {objective.name: objective.unit for objective in run.objectives}
    lines = [f"network {network.index}" + (" (from the archive)" if network.source == "archive" else "")]
    for name in network.metrics:
        lines.append(f"{name} {measured(network.metrics, network.errors, name)} {units.get(name, '')}".strip())
    return "\n".join(lines)


def _scales(width: int, height: int, x_range: Range, y_range: Range):
    """The two functions from values to pixels."""

    def x_of(value: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * (value - x_range[0]) / (x_range[1] - x_range[0])

    def y_of(value: float) -> float:
        return height - BOTTOM - (height - TOP - BOTTOM) * (value - y_range[0]) / (y_range[1] - y_range[0])

    return x_of, y_of


def _path(corners: tuple[Point, ...], x_of, y_of) -> str:
    return "M" + "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in corners)


def _frame(width: int, height: int, x_range: Range, y_range: Range, x_label: str, y_label: str, counts: bool) -> str:
    """Grid lines, the words at them, and the labels of both axes."""
    x_of, y_of = _scales(width, height, x_range, y_range)
    right, bottom = width - RIGHT, height - BOTTOM
    lines = []
    for value, words in ticks(x_range, counts):
        x = x_of(value)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{words}</text>')
    for value, words in ticks(y_range):
        y = y_of(value)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        lines.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{words}</text>')
    across, up = (LEFT + right) / 2, (TOP + bottom) / 2
    lines.append(f'<text x="{across:.0f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>')
    lines.append(f'<text transform="translate(15 {up:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return "\n".join(lines)


def _large(digits: str) -> str:
    """A whole number of any length: in full up to a million, then "2.18 × 10¹⁹"."""
    digits = digits.lstrip("0") or "0"
    if len(digits) <= 7:
        return f"{int(digits):,}"
    mantissa, power = f"{Decimal(digits):.2e}".split("e+")
    return f'<span title="{digits[:200]}">{mantissa} × 10<sup>{power}</sup></span>'


def _duration(seconds: float) -> str:
    """Seconds in words: "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
