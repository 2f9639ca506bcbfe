"""`nasjax report`: the page of one run, or a comparison of several."""

from pathlib import Path

from rich.console import Console

from nasjax.cli.console import prepare_jax
from nasjax.cli.options import Arguments
from nasjax.report import read_run, write_report
from nasjax.report.compare import write_comparison
from nasjax.report.terminal import front_table, text_table


def report(arguments: Arguments) -> int:
    """Runs `nasjax report`."""
    runs = [Path(run) for run in arguments.paths]
    if len(runs) == 1 and not list(runs[0].glob("*/summary.json")):
        page = write_report(runs[0])
        Console().print(front_table(read_run(runs[0])))
    else:
        prepare_jax()
        page, rows, remarks = write_comparison(runs, Path(arguments.options.get("out", runs[0])))
        Console().print(text_table(rows))
        print(*(f"{remark}.\n" for remark in remarks), sep="", end="")
    print(f"Report: {page}")
    return 0
