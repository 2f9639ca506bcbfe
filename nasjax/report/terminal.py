"""Tables on the terminal."""

from typing import TYPE_CHECKING

from nasjax.report.formatting import column_heading, format_architecture, format_metric, units_of
from nasjax.runs.reader import Run

if TYPE_CHECKING:
    from rich.table import Table

MAX_ROWS = 40
"""Networks shown of a front."""

MAX_ARCHITECTURE_WIDTH = 80
"""Characters shown of an architecture."""


def front_table(run: Run) -> "Table":
    """The front, one network a row: index, objectives and test metrics ± standard error, and the architecture.

    Long architectures are cut, and only the first networks of a large front are shown.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Text, since names may contain what rich takes for markup.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    units = units_of(run.objectives)
    names = [*(objective.name for objective in run.objectives), *run.tests]
    shown = run.front[:MAX_ROWS]
    cells = [[str(n.index), *(format_metric(n.metrics, n.errors, name) for name in names)] for n in shown]
    heads = ["index", *(column_heading(name, units).replace(" (", "\n(") for name in names)]
    for column, head in enumerate(heads):
        # On a narrow terminal rich narrows columns that may wrap first: the architecture, not the numbers.
        width = max([*map(len, head.split("\n")), *(len(row[column]) for row in cells)])
        table.add_column(Text(head), justify="right", no_wrap=True, min_width=width)
    table.add_column(Text("architecture"), max_width=MAX_ARCHITECTURE_WIDTH)
    for network, row in zip(shown, cells, strict=True):
        table.add_row(
            *map(Text, row), Text(format_architecture(network, run.summary["genes"]), no_wrap=True, overflow="ellipsis")
        )
    left = len(run.front) - len(shown)
    if left:
        table.add_row("…", *[""] * len(names), Text(f"… and {left} more"))
    return table


def text_table(rows: list[list[str]]) -> "Table":
    """A plain table from rows of text, the first of which is the header."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in rows[0]:
        table.add_column(Text(head))
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table
