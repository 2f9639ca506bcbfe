"""The page of a training, and its curves as PNG: losses, scores of the sub-networks watched, and their ranking."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from nasjax.host import parse_json, read_text, replace_file
from nasjax.report import svg
from nasjax.report.colours import COLOURS
from nasjax.report.formatting import format_duration
from nasjax.report.page import TEMPLATES
from nasjax.report.plots import Point, padded
from nasjax.runs.folder import TRAINING_RECORD
from nasjax.training.ranking import RANKING
from nasjax.training.watch import CURVES, PLAIN, Row, read_curves
from nasjax.words import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, IMAGE = "training.html", "curves.png"


@dataclass(frozen=True)
class Chart:
    """Curves against epochs, or points: `lines` by label."""

    y_label: str
    lines: Mapping[str, Sequence[Point]]
    x_label: str = "epochs"
    points: bool = False


def write_training_page(folder: Path) -> Path:
    """Writes `training.html` and `curves.png` into the folder of a training that has ended; returns the page's path."""
    record = parse_json(read_text(folder / TRAINING_RECORD))
    rows = read_curves(folder / CURVES)
    ranked = _ranked(folder / RANKING)
    charts = _charts(rows, record, ranked)
    image = io.BytesIO()
    _figure(charts).savefig(image, format="png")
    replace_file(folder / IMAGE, image.getvalue())
    replace_file(folder / PAGE, _page(record, rows, charts).encode("utf-8", errors="replace"))
    return folder / PAGE


def _ranked(path: Path) -> list[Point]:
    """The metric of each network trained alone (x) and as a part of the super-network (y); none without a ranking."""
    if not path.is_file():
        return []
    cells = [line.split(",") for line in read_text(path).splitlines()[1:]]
    return [(float(row[-1]), float(row[-2])) for row in cells]


def _charts(rows: Sequence[Row], record: Mapping[str, Any], ranked: Sequence[Point]) -> list[Chart]:
    charts = [Chart("mean loss", {"loss": [(row["epoch"], row["loss"]) for row in rows]})]
    scores = list(dict.fromkeys(name for row in rows for name in row if name not in PLAIN))
    if scores:
        metric = scores[0].rpartition("_")[0]
        lines = {name.rpartition("_")[2]: [(row["epoch"], row[name]) for row in rows if name in row] for name in scores}
        charts.append(Chart(f"{metric}, first validation examples", lines))
    charts.append(Chart("learning rate", {"learning rate": [(row["epoch"], row["learning_rate"]) for row in rows]}))
    if ranked:
        charts.append(Chart(f"{record['metric']} in the super-network", {"networks": ranked}, "trained alone", points=True))
    return charts


def _ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    points = [point for line in chart.lines.values() for point in line]
    ranges = [padded(min(values, default=0.0), max(values, default=1.0)) for values in zip(*points, strict=True)]
    return ranges[0], ranges[1]


def _figure(charts: Sequence[Chart]) -> "Figure":
    from matplotlib.figure import Figure  # Takes longer to import than all of nasjax.

    figure = Figure(figsize=(4.4 * len(charts), 3.8), dpi=140, layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        for colour, (label, points) in zip(COLOURS, chart.lines.items(), strict=False):
            style: dict[str, Any] = {"linestyle": "none", "marker": "o"} if chart.points else {"linewidth": 1.8}
            if len(points) == 1:
                style["marker"] = "o"
            axes.plot([x for x, _ in points], [y for _, y in points], color=colour, label=label, **style)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label, parse_math=False)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(chart.lines) > 1:
            axes.legend(frameon=False)
    return figure


def _svg(chart: Chart) -> str:
    width, height = 560, 360
    x_range, y_range = _ranges(chart)
    x_of, y_of = svg.scales(width, height, x_range, y_range)
    parts = [svg.frame(width, height, x_range, y_range, chart.x_label, chart.y_label, chart.x_label == "epochs")]
    for i, (label, points) in enumerate(chart.lines.items()):
        title = f"<title>{escape(label)}</title>"
        if chart.points or len(points) == 1:
            dots = (f'<circle class="point dominated" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4"/>' for x, y in points)
            parts.append(f"<g>{title}{''.join(dots)}</g>")
        else:
            parts.append(f'<path class="line s{i % len(COLOURS)}" d="{svg.path(points, x_of, y_of)}">{title}</path>')
    label = escape(f"{chart.y_label} against {chart.x_label}")
    return f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'


def _page(record: Mapping[str, Any], rows: Sequence[Row], charts: Sequence[Chart]) -> str:
    settings, scores = record["settings"], record["scores"]
    subnet = settings.get("subnet")
    splits = list(dict.fromkeys(split for of in scores.values() for split in of))
    lines = [["", *(f"{record['metric']}, {split}" for split in splits)]]
    lines += [[name, *(f"{of[split]:.4g}" for split in splits)] for name, of in scores.items()]
    facts = {"seed": str(record["seed"]), "epochs": str(settings["trainer"]["epochs"])}
    if rows:
        facts |= {"loss": f"{rows[-1]['loss']:.4g}", "time": format_duration(rows[-1]["seconds"])}
    if ranking := record.get("ranking"):
        facts["Kendall's tau"] = f"{ranking['kendall_tau']} ± {ranking['standard_error']}"
    watched = next((chart for chart in charts if len(chart.lines) > 1), None)
    keys = [] if watched is None else list(watched.lines)
    return Template((TEMPLATES / "training.html").read_text(encoding="utf-8")).substitute(
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        title=escape(str(subnet or settings["supernet"]["name"])),
        method=escape(f"By trainer={settings['trainer']['name']} on task {settings['task']['name']}."),
        facts="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()),
        figures="\n".join(map(_svg, charts)),
        watched=" &nbsp; ".join(f'<span class="key s{i}"></span> {escape(key)}' for i, key in enumerate(keys)),
        scores=_table(lines),
        ranking="" if not ranking else (
            "<h2>Ranking</h2><p>"
            f"{plural(ranking['networks'], 'random sub-network')}, each against the same architecture trained alone for "
            f"{plural(settings['trainer']['alone_epochs'], 'epoch')}: Kendall's tau {ranking['kendall_tau']} ± "
            f"{ranking['standard_error']} of the two rankings. Their values are in {RANKING}.</p>"
        ),
        config=escape(json.dumps(settings, indent=1)),
        version=escape(record["version"]),
        command=escape(record["command"]),
    )  # fmt: skip


def _table(lines: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f"<th>{escape(cell)}</th>" for cell in lines[0])]
    cells += ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines[1:]]
    return "".join(f"<tr>{line}</tr>\n" for line in cells)
