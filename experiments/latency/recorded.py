"""Errors of latency models on recorded devices: python experiments/latency/recorded.py RESULTS.csv [SEEDS]

Two questions: how accurate is a predictor of latency by the number of measured networks (`samples`); and by 10 to 50
measured networks with the model of another device as a further input (`transfer`). Errors are on 1,000 networks (500 of HAT)
that no model was fitted to. Runs that are in the file are skipped, so an interrupted command can be repeated.

NASJAX_DATA names the folder of the data sets (default: ../shared/data beside the repository): `help-latency`
(github.com/HayeonLee/HELP, arXiv:2106.08630) and `hat-latency` (github.com/mit-han-lab/hardware-aware-transformers,
arXiv:2005.14187), latencies in milliseconds as published.
"""

import csv
import gzip
import json
import os
import re
import sys
from functools import cache
from itertools import product
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from nasjax import supernets
from nasjax.hardware.costs import cost_tables
from nasjax.hardware.latency_model import fit_latency
from nasjax.predictors import GaussianProcess, Inputs, Ridge, errors
from nasjax.predictors.svr import SVR
from nasjax.space import Gene, SearchSpace

DATA = Path(os.environ.get("NASJAX_DATA", Path(__file__).parents[3] / "shared" / "data"))

PREDICTORS = {"ridge": Ridge(), "svr": SVR(), "gaussian_process": GaussianProcess()}
SAMPLES = (10, 20, 50, 100, 200)
FEW = (10, 20, 50)
SOURCE_SAMPLES = 400
TEST = 1000

DEVICES = {
    "ofa": ("v100_64", "v100_32", "v100_1", "titan_xp_32"),
    "nb201": ("gold_6226", "titan_rtx_256", "raspi4"),
    "hat": ("wmt14ende_cpu_xeon", "wmt14ende_cpu_raspberrypi", "wmt14ende_gpu_titanxp"),
}
TRANSFERS = {
    "ofa": (("2080ti_64", "v100_64"), ("titan_rtx_64", "titan_xp_64"), ("titan_xp_32", "v100_32"), ("2080ti_1", "v100_1"),
            ("titan_xp_64", "v100_1")),
    "nb201": (("gold_6226", "raspi4"), ("titan_rtx_256", "gold_6226")),
    "hat": (("wmt14ende_cpu_xeon", "wmt14ende_cpu_raspberrypi"), ("wmt14ende_cpu_xeon", "wmt14ende_gpu_titanxp")),
}  # fmt: skip
"""Pairs of source and target device: similar, less similar, and (last of `ofa`) with hardly correlated ranks."""

HEADER = ("question", "space", "device", "source", "predictor", "samples", "seed", "mape", "tau")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def ofa():
    """Once-for-All's MobileNetV3 at 25 resolutions; macs grow with the square of the resolution."""
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    space = supernets.abstract(name, resolutions=tuple(range(128, 225, 4))).space
    macs = cost_tables(supernets.abstract(name, image_size=224))["macs"]

    def parts(archs):
        sides = (128 + 4 * jnp.asarray(archs)[:, 0]).astype(jnp.float32) / 224
        return macs.by_unit(jnp.asarray(archs)[:, 1:]) * sides[:, None] ** 2

    with gzip.open(DATA / "help-latency" / "ofa_archs.json.gz", "rt") as file:
        archs = np.array([encoded(space, row) for row in json.load(file)], np.int32)
    return Inputs(space, parts), archs, np.load(DATA / "help-latency" / "ofa_latency_ms.npz")


def encoded(space, row):
    """Returns the vector of one of HELP's architectures, which has entries for four blocks a stage; the first `d` exist."""
    choices = {"resolution": row["r"]}
    for stage, depth in enumerate(row["d"]):
        choices[f"depth_{stage + 1}"] = depth
        for block in range(depth):
            choices[f"kernel_{stage + 1}_{block + 1}"] = row["ks"][4 * stage + block]
            choices[f"expand_{stage + 1}_{block + 1}"] = row["e"][4 * stage + block]
    return space.encode(choices)


def nb201():
    """NAS-Bench-201's cells: six edges, five operations."""
    space = SearchSpace(tuple(Gene(f"edge_{i}", OPERATIONS) for i in range(6)))
    lines = (DATA / "help-latency" / "nasbench201_arch_strings.txt").read_text().split()
    archs = np.array([[OPERATIONS.index(word) for word in re.findall(r"(\w+)~", line)] for line in lines], np.int32)
    return Inputs(space), archs, np.load(DATA / "help-latency" / "nasbench201_latency_ms.npz")


def hat():
    """HAT's transformers. Ten numbers of each are recorded, some of them averages over layers; each becomes a gene."""
    tables = {}
    for path in sorted((DATA / "hat-latency").glob("wmt14ende_*_all.csv")):
        with path.open(newline="") as file:
            tables[path.stem.removesuffix("_all")] = list(csv.DictReader(file))
    columns = [name for name in next(iter(tables.values()))[0] if not name.startswith("latency")]
    # The networks differ from device to device.
    values = {name: np.array([[float(row[c]) for c in columns] for row in rows]).round(3) for name, rows in tables.items()}
    options = [tuple(sorted({row[i] for table in values.values() for row in table.tolist()})) for i in range(len(columns))]
    space = SearchSpace(tuple(Gene(name, choices) for name, choices in zip(columns, options, strict=True)))
    archs = {
        name: np.stack([np.searchsorted(o, table[:, i]) for i, o in enumerate(options)], 1).astype(np.int32)
        for name, table in values.items()
    }
    milliseconds = {
        name: np.array([float(row["latency_mean_encoder"]) + float(row["latency_mean_decoder"]) for row in rows])
        for name, rows in tables.items()
    }
    return Inputs(space), archs, milliseconds


@cache
def recorded(name):
    """Returns the predictors' inputs, architectures, and latencies (ms) by device."""
    return {"ofa": ofa, "nb201": nb201, "hat": hat}[name]()


def rows_of(space, device, seed):
    """Returns a device's architectures and latencies (ms) in a random order; the test networks come last."""
    _, archs, milliseconds = recorded(space)
    archs = archs[device] if isinstance(archs, dict) else archs
    order = np.random.default_rng(seed).permutation(len(archs))
    return archs[order], milliseconds[device][order]


@cache
def source_model(space, device, seed):
    """Returns the model of a source device, fitted to networks that are not tested on."""
    archs, milliseconds = rows_of(space, device, seed)
    return fit_latency(GaussianProcess(), recorded(space)[0], archs[:SOURCE_SAMPLES], milliseconds[:SOURCE_SAMPLES])


def trial(space, device, source, predictor, samples, seed):
    """Returns the errors of one model on test networks."""
    archs, milliseconds = rows_of(space, device, seed)
    known = source_model(space, source, seed).as_prior if source else None
    train, test = slice(SOURCE_SAMPLES, SOURCE_SAMPLES + samples), slice(-min(TEST, len(archs) // 4), None)
    model = fit_latency(PREDICTORS[predictor], recorded(space)[0], archs[train], milliseconds[train], known)
    return errors(milliseconds[test], model.exact(archs[test]))


def trials(seeds):
    """Yields every run of every question."""
    for seed, space in product(seeds, DEVICES):
        for samples, predictor, device in product(SAMPLES, PREDICTORS, DEVICES[space]):
            yield "samples", space, device, "", predictor, samples, seed
        for samples, (source, device) in product(FEW, TRANSFERS[space]):
            yield "transfer", space, device, source, "gaussian_process", samples, seed
            yield "transfer", space, device, "", "gaussian_process", samples, seed


def main(path, seeds=3):
    path = Path(path)
    known = set()
    if path.is_file():
        with path.open(newline="") as file:
            known = {tuple(row[name] for name in HEADER[:-2]) for row in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow(HEADER)
        for row in dict.fromkeys(trials(range(seeds))):
            if tuple(map(str, row)) in known:
                continue
            found = trial(*row[1:])
            writer.writerow([*row, f"{found.mape:.3f}", f"{found.tau:.4f}"])
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
