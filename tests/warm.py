"""A process that has imported everything and forks a search for each line of words (JSON) on its input.

It prints the search's process id, and its exit status once that has ended: a search then starts within a second.
"""

import json
import os
import sys

import nasjax.cli.search
import nasjax.report.plots  # noqa: F401
from nasjax.cli import main
from nasjax.supernets import tabular

tabular.LOOKUP_CHUNK = 3
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
