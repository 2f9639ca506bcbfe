"""A process that has imported everything and forks commands for each line on its input: a list (JSON) of their words.

It prints their process ids on one line, and their exit statuses on the next, once all have ended: a search or a training
then starts within a second.
"""

import json
import os
import sys

import nasjax.cli.search
import nasjax.report.plots  # noqa: F401
from nasjax.cli import main
from nasjax.supernets import tabular
from nasjax.training import batches, run

tabular.LOOKUP_CHUNK = 3
batches.MOST_STEPS, run.SAVE_SECONDS = 5, 0.5
print("ready", flush=True)
for line in sys.stdin:
    children = []
    for words in json.loads(line):
        child = os.fork()
        if not child:
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            os._exit(main(words))
        children.append(child)
    print(*children, flush=True)
    print(*(os.waitpid(child, 0)[1] for child in children), flush=True)
