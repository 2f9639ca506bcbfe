"""Writes NAS-Bench-Macro as a table: python experiments/nas_bench_macro/convert.py nas-bench-macro_cifar10.json OUT.csv

Source: github.com/xiusu/NAS-Bench-Macro, data/nas-bench-macro_cifar10.json (Apache-2.0): 3^8 networks on CIFAR-10, each
trained three times. A key has one digit a layer: 0 identity, 1 MBConv (expand 3, kernel 3), 2 MBConv (expand 6, kernel 5).
"""

import csv
import json
import sys
from pathlib import Path

LAYERS = tuple(f"layer_{i}" for i in range(1, 9))
METRICS = {"accuracy_top1": "mean_acc", "macs": "flops", "params": "params"}


def convert(source: Path, target: Path) -> int:
    """Writes the table and returns its number of rows."""
    networks = json.loads(source.read_text())
    rows = [[*key, *(network[field] for field in METRICS.values())] for key, network in sorted(networks.items())]
    with target.open("w", newline="") as file:
        csv.writer(file).writerows([[*LAYERS, *METRICS], *rows])
    return len(rows)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: convert.py nas-bench-macro_cifar10.json OUT.csv")
    print(f"{convert(Path(sys.argv[1]), Path(sys.argv[2]))} networks in {sys.argv[2]}")
