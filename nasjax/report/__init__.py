"""Reports of finished runs: tables, plots, an HTML page for each run, and comparisons of several runs."""

from pathlib import Path

from nasjax.runs.reader import Network, Run, read_run

__all__ = ["Network", "Run", "read_run", "write_report"]


def write_report(folder: Path) -> Path:
    """Writes front.png, hypervolume.png and report.html into a run folder; returns the path of the page.

    Raises ConfigError where the run has not finished or a file of it is damaged.
    """
    # matplotlib takes long to import.
    from nasjax.report.page import write_page
    from nasjax.report.plots import write_plots

    run = read_run(folder)
    write_plots(run, run.folder)
    return write_page(run, run.folder)
