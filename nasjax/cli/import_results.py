"""`nasjax import-results`: result tables of DyNAS-T as a table that can be searched."""

import re
from pathlib import Path

from nasjax import supernets
from nasjax.cli.compose import configuration_of
from nasjax.cli.options import Arguments
from nasjax.errors import ConfigError
from nasjax.host import new_place
from nasjax.runs.folder import write_table
from nasjax.searches import dynast
from nasjax.words import plural


def import_results(arguments: Arguments) -> int:
    """Runs `nasjax import-results`."""
    if not arguments.paths:
        raise ConfigError("nasjax import-results needs at least one result table of DyNAS-T")
    name = arguments.options.get("out", "imported.csv")
    out = new_place(f"out={name}", name)
    net = None
    if arguments.settings:
        net = supernets.abstract(**configuration_of(arguments)["supernet"])
    table = dynast.import_results([Path(file) for file in arguments.paths], net)
    write_table(out, table.header, table.rows)
    for remark in table.remarks:
        print(remark[0].upper() + remark[1:] + ".")
    networks, genes = plural(len(table.rows), "network"), plural(len(table.genes), "gene")
    print(f"{plural(table.evaluations, 'evaluation')} of {networks}, {genes}.")
    patterns = ",".join(dict.fromkeys(re.sub(r"(?<=_)\d+(_\d+)?$", "*", gene) for gene in table.genes))
    print(f"Table: {out}. To search it: supernet=tabular supernet.table={out} supernet.genes=[{patterns}]")
    return 0
