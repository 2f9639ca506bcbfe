"""The front as a table on the terminal."""

from typing import TYPE_CHECKING

from nasjax.runs.reader import Run, architecture, number

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 40
MOST_LETTERS = 80


def front_table(run: Run) -> "Table":
    """The front, one network a row: index, objectives and test columns ± standard error, and the architecture, cut short."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Names are text, not rich's markup: hence Text.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    units = {objective.name: objective.unit for objective in run.objectives}
    names = [*units, *run.tests]
    shown = run.front[:MOST_ROWS]
    cells = [[str(n.index), *(measured(n.metrics, n.errors, name) for name in names)] for n in shown]
    heads = ["index", *(titled(name, units).replace(" (", "\n(") for name in names)]
    for column, head in enumerate(heads):
        # On a narrow terminal the architecture gives way (a column that may wrap is narrowed first), the numbers do not.
        width = max([*map(len, head.split("\n")), *(len(row[column]) for row in cells)])
        table.add_column(Text(head), justify="right", no_wrap=True, min_width=width)
    table.add_column(Text("architecture"), max_width=MOST_LETTERS)
    for network, row in zip(shown, cells, strict=True):
        table.add_row(*map(Text, row), Text(architecture(network, run.summary["genes"]), no_wrap=True, overflow="ellipsis"))
    left = len(run.front) - len(shown)
    if left:
        table.add_row("…", *[""] * len(names), Text(f"… and {left} more"))
    return table


def words_table(rows: list[list[str]]) -> "Table":
    """A header and rows of words as a plain table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in rows[0]:
        table.add_column(Text(head))
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def measured(metrics: dict[str, float], errors: dict[str, float], name: str) -> str:
    """A metric with its standard error in words; "–" where it was not measured."""
    return number(metrics[name], errors.get(name)) if name in metrics else "–"


def titled(name: str, units: dict[str, str]) -> str:
    """A column's heading with its unit; a test column has that of the metric it repeats."""
    unit = units.get(name) or units.get(name.removeprefix("test_"), "")
    return f"{name} ({unit})" if unit else name
