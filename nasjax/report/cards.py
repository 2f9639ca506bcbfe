"""The cards of the page: one for each network of the front, with its metrics relative to the largest network's."""

import shlex
from collections.abc import Mapping
from html import escape

from nasjax.registry import IN_MEMORY
from nasjax.report.drawings import DrawingStyle, draw_network, legend, undrawn_genes
from nasjax.report.formatting import column_heading, format_architecture, format_metric, format_number, units_of
from nasjax.runs.reader import Network, Run

NOT_MEASURED = "not measured in this run"


def cards(run: Run, style: DrawingStyle) -> str:
    """A card for each network of the front (the first is shown), and the largest network below; "" without a front."""
    if not run.front:
        return ""
    largest = largest_metrics(run)
    front = "\n".join(_card(run, style, network, largest, i == 0) for i, network in enumerate(run.front))
    below = "" if run.space.largest is None else _largest_network(run, style, run.space.largest, largest)
    explanation = f'<p class="legend">{legend(run.space, style)}</p>'
    return f'<div class="cards" aria-live="polite">\n{front}\n</div>\n{below}{explanation}'


def largest_metrics(run: Run) -> dict[str, float]:
    """The largest network's exact costs, and its measured metrics where the run evaluated it."""
    evaluated = next((n for n in run.evaluations if not n.failed and n.genes == run.space.largest), None)
    return {**(evaluated.metrics if evaluated else {}), **(run.space.costs or {})}


def relative_to_largest(run: Run, name: str, value: float, largest: float | None) -> str:
    """A metric relative to the largest network's, as text: a percentage for costs, a difference for what is maximised."""
    if largest is None:
        return f"largest: {NOT_MEASURED}"
    if value == largest:
        return "as the largest"
    objective = next((objective for objective in run.objectives if objective.name == name), None)
    is_cost = name in (run.space.costs or {}) or (objective is not None and objective.direction == "min")
    if is_cost and value > 0 and largest > 0:
        share = 100 * value / largest
        return f"{share:.0f} % of the largest" if share >= 1 else f"{share:.2g} % of the largest"
    unit = "points" if objective and objective.unit == "%" else objective.unit if objective else ""
    gap = abs(value - largest)
    difference = format_number(gap) if gap >= 100 else f"{gap:.2g}"
    return f"{'+' if value > largest else '−'}{difference} {unit}".strip() + " against the largest"


def _card(run: Run, style: DrawingStyle, network: Network, largest: Mapping[str, float], shown: bool) -> str:
    tiles = []
    units = units_of(run.objectives)
    for name in shown_metrics(run):
        value, reference = network.metrics[name], largest.get(name)
        relative = "" if run.space.largest is None else relative_to_largest(run, name, value, reference)
        tiles.append(_tile(column_heading(name, units), format_metric(network.metrics, network.errors, name), relative))
    genes = " ".join(f"<code>{escape(f'{name}={option}')}</code>" for name, option in network.genes.items())
    short = escape(format_architecture(network, run.summary["genes"]))
    return (
        f'<article class="card{" shown" if shown else ""}" id="card-{network.index}" data-index="{network.index}">'
        f'<h3>Network {network.index}{_heading_details(run, network.genes)}</h3><dl class="tiles">{"".join(tiles)}</dl>'
        f"<details><summary>all choices</summary><p><code>{short}</code></p><p>{genes}</p></details>{_command(run, network)}"
        f"{draw_network(run.space, style, network.genes)}</article>"
    )


def command(run: Run) -> str:
    """The command that extracts a network, without its index; "" for tables and functions, which have none, for what was
    made in memory, which no command finds, and while the search runs."""
    in_memory = IN_MEMORY["name"] in (run.summary["task"], run.summary["supernet"])
    if run.summary["task"] is None or in_memory or not run.finished:
        return ""
    return f"nasjax extract run={shlex.quote(str(run.folder))} network="


def _command(run: Run, network: Network) -> str:
    """The command that extracts a network, to be copied."""
    if not command(run):
        return ""
    place = f"command-{network.index}"
    button = f'<button type="button" data-copy="{place}">copy</button>'
    return f'<p class="actions"><code id="{place}">{escape(command(run))}{network.index}</code>{button}</p>'


def shown_metrics(run: Run) -> list[str]:
    """The objectives, then the exact costs that every network of the front has."""
    costs = [n for n in run.space.costs or {} if all(n in network.metrics for network in run.front)]
    return list(dict.fromkeys([*(objective.name for objective in run.objectives), *costs]))


def _tile(name: str, value: str, relative: str) -> str:
    below = f'<dd class="beside">{escape(relative)}</dd>' if relative else ""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd>{below}</div>"


def _largest_network(run: Run, style: DrawingStyle, genes: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    values = (f"{name} {format_number(metrics[name]) if name in metrics else NOT_MEASURED}" for name in shown_metrics(run))
    return (
        f'<section class="largest"><h3>Largest network{_heading_details(run, genes)}</h3>'
        f"{draw_network(run.space, style, genes)}<p>{escape(' · '.join(values))}</p></section>"
    )


def _heading_details(run: Run, genes: Mapping[str, str]) -> str:
    """How many blocks of a network are on, and the genes that its drawing does not show."""
    count = ""
    if run.space.blocks:
        on = sum(block.is_on(genes) for block in run.space.blocks)
        count = f"<small>{on} of {len(run.space.blocks)} blocks</small>"
    undrawn = [f"{name}={genes[name]}" for name in undrawn_genes(run.space) if name in genes]
    return count + "".join(f"<code>{escape(gene)}</code>" for gene in undrawn)
