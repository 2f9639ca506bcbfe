"""Tables, plots and the page of a finished run."""

from pathlib import Path

from nasjax.runs.reader import Network, Run, read_run

__all__ = ["Network", "Run", "read_run", "write_report"]


def write_report(folder: Path) -> Path:
    """Read a run folder, write front.png, hypervolume.png and report.html into it, and return the page's path."""
    # Drawing needs matplotlib, which takes long to import.
    from nasjax.report.page import write_page
    from nasjax.report.plots import write_plots

    run = read_run(folder)
    write_plots(run, run.folder)
    return write_page(run, run.folder)
