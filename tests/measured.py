"""A function to be searched that notes every network that it measures; tests run searches of it in processes of their own.

`MEASURED` names its log. While the file `GATE` exists it does not answer; it waits for `TOGETHER` searches before its first.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

GENES = {"d": [1, 2, 3], "a": [3, 5, 7], "b": [2, 4, 6], "c": [1, 2, 3, 4]}
WORDS = [
    "search", "supernet=external", "supernet.evaluate=measured:evaluate", "supernet.metrics=[acc,cost]",
    *(f"supernet.genes.{name}={options}".replace(" ", "") for name, options in GENES.items()),
    "objectives=[max:acc,min:cost]", "references.acc=0", "references.cost=1000",
    "tactic=concurrent", "predictor=ridge", "tactic.population=6",
]  # fmt: skip


def evaluate(archs):
    """Accuracy and cost of named architectures."""
    log = Path(os.environ["MEASURED"])
    for arch in archs:
        with log.open("a") as file:
            file.write(f"{os.getppid()} {' '.join(str(arch[name]) for name in GENES)}\n")
    wait_for(lambda: len({line.split()[0] for line in lines(log)}) >= int(os.environ.get("TOGETHER", "1")))
    parent = os.getppid()
    wait_for(lambda: not os.path.exists(os.environ.get("GATE", "")) or os.getppid() != parent)
    return [
        {
            "acc": 50 + arch["a"] * arch["d"] - (arch["b"] - arch["c"]) ** 2 / 7,
            "cost": 10 * arch["d"] + arch["a"] * arch["b"],
        }
        for arch in archs
    ]


def wait_for(condition):
    """Returns once it holds."""
    while not condition():
        time.sleep(0.01)


def lines(log):
    """The lines of a log: process and network."""
    return log.read_text().splitlines() if log.exists() else []


def start(folder, *words, **environment):
    """A search of `evaluate` as a process, in `folder`; its log is `measured.log` there."""
    known = os.environ | {"MEASURED": str(folder / "measured.log"), "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "nasjax", *WORDS, *words]
    return subprocess.Popen(command, cwd=folder, env=known | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True)  # fmt: skip
