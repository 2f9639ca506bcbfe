"""`nasjax report`: the page of one run, a comparison of several, or pages of all runs of a folder while they go on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from rich.console import Console

from nasjax.cli.console import prepare_jax
from nasjax.cli.options import Arguments, whole_number
from nasjax.errors import ConfigError
from nasjax.report import read_run, write_report
from nasjax.report.compare import write_comparison
from nasjax.report.terminal import front_table, text_table
from nasjax.report.traces import has_results
from nasjax.runs.folder import SEEDS_JSON

PORT = 8765
"""The port that pages are served at, where none is named."""


def report(arguments: Arguments) -> int:
    """Runs `nasjax report`."""
    runs = [Path(run) for run in arguments.paths]
    if "watch" in arguments.options:
        return _watch(runs, arguments.options)
    if "port" in arguments.options:
        raise ConfigError("--port goes with --watch only")
    if len(runs) == 1 and not ((runs[0] / SEEDS_JSON).is_file() or any(map(has_results, runs[0].glob("*")))):
        if "out" in arguments.options:
            raise ConfigError("--out is for comparisons of several runs; the page of one is report.html in its folder")
        page = write_report(runs[0])
        Console().print(front_table(read_run(runs[0])))
    else:
        prepare_jax()
        page, rows, remarks = write_comparison(runs, Path(arguments.options.get("out", runs[0])))
        Console().print(text_table(rows))
        print(*(f"{remark}.\n" for remark in remarks), sep="", end="")
    print(f"Report: {page}")
    return 0


def _watch(folders: Sequence[Path], options: Mapping[str, str]) -> int:
    """Serves pages until Ctrl-C. Raises ConfigError for several folders, and as `live_server` does."""
    if len(folders) > 1:
        raise ConfigError("--watch takes one folder: name one that contains all runs")
    if "out" in options:
        raise ConfigError("--watch writes no files: remove --out")
    port = whole_number(options, "port", 0, "a port from 0 to 65535")
    if port is not None and port > 65535:
        raise ConfigError(f"port={port} is not a port from 0 to 65535")
    from nasjax.report.live import ADDRESS, live_server  # Imports training, which takes seconds.

    with live_server(folders[0], PORT if port is None else port) as server:
        jax.config.update("jax_platforms", "cpu")  # Accelerators are the searches'.
        prepare_jax()
        print(f"Runs in {folders[0]}: http://{ADDRESS}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0
