"""`nasjax evaluate`: measures given architectures."""

from pathlib import Path

from rich.console import Console

from nasjax.cli.compose import configuration_of
from nasjax.cli.console import prepare_jax
from nasjax.cli.options import Arguments
from nasjax.errors import ConfigError
from nasjax.generators import result_of
from nasjax.host import new_place
from nasjax.progress import ProgressBar
from nasjax.report.terminal import text_table
from nasjax.runs.folder import read_settings, write_table
from nasjax.runs.inputs import override_inputs
from nasjax.searches.evaluate import evaluating_table


def evaluate(arguments: Arguments) -> int:
    """Runs `nasjax evaluate`: measures the architectures of a CSV file, or of the front of a run."""
    options, settings = arguments.options, arguments.settings
    archs = options.get("archs")
    if "run" in options:
        run = Path(options["run"])
        config = override_inputs(run, read_settings(run), settings)
        archs = archs or str(run / "pareto.csv")
    else:
        config = configuration_of(arguments)
    if archs is None:
        raise ConfigError("nasjax evaluate needs archs=FILE.csv, with a column for each gene, or run=FOLDER")
    name = options.get("out", "evaluated.csv")
    out = new_place(f"out={name}", name)  # Refused before anything is measured.
    prepare_jax()
    steps = evaluating_table(config, Path(archs), options.get("split", "validation"))
    with ProgressBar("evaluations", "last") as bar:
        header, rows = result_of(steps, lambda now: bar.update(now.done, now.planned, now.value))
    write_table(out, header, rows)
    shown = [i for i, name in enumerate(header) if isinstance(rows[0][i], float) and not name.endswith("_se")]
    table = [[str(number), *(f"{row[i]:.5g}" for i in shown)] for number, row in enumerate(rows)]
    Console().print(text_table([["row", *(header[i] for i in shown)], *table]))
    print(f"Written to {out}")
    return 0
