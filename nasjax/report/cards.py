"""What the page shows of one network: its numbers, set against those of the largest, and its drawing."""

from collections.abc import Mapping
from html import escape

from nasjax.report.drawings import Look, drawing, legend, loose
from nasjax.report.terminal import measured, titled
from nasjax.runs.reader import Network, Run, architecture, number

UNMEASURED = "not measured in this run"


def cards(run: Run, style: Look) -> str:
    """A card for each network of the front, the first shown, and the largest network below them; nothing without a front."""
    if not run.front:
        return ""
    largest = largest_metrics(run)
    made = "\n".join(_card(run, style, network, largest, i == 0) for i, network in enumerate(run.front))
    below = _largest(run, style, largest) if run.space.largest is not None else ""
    words = f'<p class="legend">{legend(run.space, style)}</p>'
    return f'<div class="cards" aria-live="polite">\n{made}\n</div>\n{below}{words}'


def largest_metrics(run: Run) -> dict[str, float]:
    """What is known of the largest network: its exact costs, and what was measured if the run happened to evaluate it."""
    found = next((n for n in run.evaluations if not n.failed and n.genes == run.space.largest), None)
    return (found.metrics if found else {}) | dict(run.space.costs or {})


def against(run: Run, name: str, value: float, largest: float | None) -> str:
    """A value beside the largest network's, in words: a share for what is spent, a difference for what is gained."""
    if largest is None:
        return f"largest: {UNMEASURED}"
    if value == largest:
        return "as the largest"
    goal = next((objective for objective in run.objectives if objective.name == name), None)
    spent = name in (run.space.costs or {}) or (goal is not None and goal.direction == "min")
    if spent and value > 0 and largest > 0:
        share = 100 * value / largest
        return f"{share:.0f} % of the largest" if share >= 1 else f"{share:.2g} % of the largest"
    unit = "points" if goal and goal.unit == "%" else goal.unit if goal else ""
    gap = abs(value - largest)
    words = f"{'+' if value > largest else '−'}{number(gap) if gap >= 100 else f'{gap:.2g}'} {unit}".strip()
    return f"{words} against the largest"


def _card(run: Run, style: Look, network: Network, largest: dict[str, float], shown: bool) -> str:
    tiles = []
    units = {objective.name: objective.unit for objective in run.objectives}
    for name in _names(run):
        beside = against(run, name, network.metrics[name], largest.get(name)) if run.space.largest is not None else ""
        tiles.append(_tile(titled(name, units), measured(network.metrics, network.errors, name), beside))
    genes = " ".join(f"<code>{escape(f'{name}={option}')}</code>" for name, option in network.genes.items())
    short = escape(architecture(network, run.summary["genes"]))
    return (
        f'<article class="card{" shown" if shown else ""}" id="card-{network.index}" data-index="{network.index}">'
        f'<h3>Network {network.index}{_about(run, network.genes)}</h3><dl class="tiles">{"".join(tiles)}</dl>'
        f"<details><summary>all choices</summary><p><code>{short}</code></p><p>{genes}</p></details>"
        f"{drawing(run.space, style, network.genes)}</article>"
    )


def _names(run: Run) -> list[str]:
    """The objectives, and the exact costs that are known of every network."""
    extra = [n for n in run.space.costs or {} if all(n in network.metrics for network in run.front)]
    return list(dict.fromkeys([*(objective.name for objective in run.objectives), *extra]))


def _tile(name: str, words: str, beside: str) -> str:
    below = f'<dd class="beside">{escape(beside)}</dd>' if beside else ""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd>{below}</div>"


def _largest(run: Run, style: Look, metrics: dict[str, float]) -> str:
    assert run.space.largest is not None
    known = (f"{name} {number(metrics[name]) if name in metrics else UNMEASURED}" for name in _names(run))
    return (
        f'<section class="largest"><h3>Largest network{_about(run, run.space.largest)}</h3>'
        f"{drawing(run.space, style, run.space.largest)}<p>{escape(' · '.join(known))}</p></section>"
    )


def _about(run: Run, genes: Mapping[str, str]) -> str:
    """How many layers a network has, and the genes that no block shows."""
    words = ""
    if run.space.blocks:
        on = sum(block.on(genes) for block in run.space.blocks)
        words = f"<small>{on} of {len(run.space.blocks)} blocks</small>"
    shown = [f"{name}={genes[name]}" for name in loose(run.space) if name in genes]
    return words + "".join(f"<code>{escape(gene)}</code>" for gene in shown)
