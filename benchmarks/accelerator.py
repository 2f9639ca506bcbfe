"""What an accelerator is measured for beside evaluator.py and step.py; `gpu.sh` runs all of them.

    python benchmarks/accelerator.py first [WAY ...]      # seconds to a full-size population's first result, and the second
    python benchmarks/accelerator.py precision [WAY ...]  # the digits' losses and accuracies in 16 bits and in 32
    python benchmarks/accelerator.py kernels [WAY ...]    # where the time goes, by kernel, and what memory bandwidth allows
    python benchmarks/accelerator.py agreement CSV CSV    # two runs' evaluations.csv: whether they measured the same
    python benchmarks/accelerator.py overhead             # the default tactic's whole search of a table, three times

A WAY is `prefix`, or with settings `masked+vmapped=loop` (ways.py). `--small` takes sizes for a rehearsal on a CPU;
`--pixels`, `--networks` and `--supernet` set others. Images and weights are random, but for those of the digits.
"""

import argparse
import csv
import re
import tempfile
from collections import defaultdict
from gzip import open as open_compressed
from json import load
from math import prod
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from scipy.stats import kendalltau
from ways import evaluator

import nasjax
from nasjax import supernets, tasks
from nasjax.evaluation import measure
from nasjax.program_cache import cache_programs
from nasjax.tasks.base import Split
from nasjax.tasks.image_classification import ImageClassification

BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12}
"""Bytes a second, as the vendor states them."""

SHOWN = 25
"""Kernels that are listed."""


def example(chosen):
    """The super-network, a task of noise, and random sub-networks."""
    pixels, images, number = (32, 40, 3) if chosen.small else (chosen.pixels, 1000, chosen.networks)
    net = supernets.create(chosen.supernet, image_size=pixels)
    rng = np.random.default_rng(0)

    def split(number):
        return Split(rng.normal(size=(number, pixels, pixels, 3)).astype(np.float32), rng.integers(0, 1000, number))

    task = ImageClassification(split(images // 2), split(images), split(1), 1000)
    return net, task, np.asarray(net.space.sample(jax.random.key(0), number))


def bound(way, net, task, archs, small):
    size = 20 if small else 100
    settings = {"batch": size, "calibration_examples": len(task.train), "chunk": len(archs), "memory_gb": 4 if small else 40}
    return evaluator(way, **settings).bind(net, task)


def first(chosen):
    """Prints the seconds until a population is scored for the first and for the second time in this process."""
    cache_programs()
    began = perf_counter()
    net, task, archs = example(chosen)
    made = perf_counter() - began
    for way in chosen.words or ["auto"]:
        began = perf_counter()
        scorer = bound(way, net, task, archs, chosen.small)
        measure(scorer, archs)
        once = perf_counter() - began
        scorer.forget()
        began = perf_counter()
        measure(scorer, archs)
        print(f"{way}: network {made:.1f} s, first result {once:.1f} s, again {perf_counter() - began:.2f} s", flush=True)


def precision(chosen):
    """Prints how the trained digits' networks measure by every way and precision, compared with float32's products."""
    cache_programs()
    net, task = supernets.create("digits"), tasks.create("digits")
    archs = np.asarray(net.space.sample(jax.random.key(0), 8 if chosen.small else 128))
    for way in chosen.words or ["masked", "prefix"]:
        exact = measure(evaluator(f"{way}+precision=float32").bind(net, task), archs)
        for name in ("default", "bfloat16"):
            found = measure(evaluator(f"{way}+precision={name}").bind(net, task), archs)
            off = np.abs(found["loss"] - exact["loss"]).max() / exact["loss"].max()
            errors = np.abs(found["accuracy_top1"] - exact["accuracy_top1"]) / exact["accuracy_top1_se"]
            taus = {metric: kendalltau(found[metric], exact[metric]).statistic for metric in ("loss", "accuracy_top1")}
            print(f"{way}, {name}: {len(archs)} networks, losses within {off:.1e} of the largest, accuracies within "
                  f"{errors.max():.2f} standard errors, tau {taus['loss']:.4f} and {taus['accuracy_top1']:.4f}")  # fmt: skip


RESULT = re.compile(r"stablehlo\.(?:convolution|dot_general).*-> tensor<([\dx]+)xf32>")


def moved_bytes(net, arch):
    """Bytes of an example's maps that cross memory at least: results of convolutions and products, written and read once."""
    choice = tuple(map(int, arch))
    traced = jax.jit(lambda x: net.forward(x, choice, None)[0]).trace(net.example())
    text = traced.lower(lowering_platforms=("cuda",)).as_text()  # Its convolutions, not those that a CPU has.
    return 2 * sum(4 * prod(map(int, shape.split("x"))) for shape in RESULT.findall(text))


def kernels(chosen):
    """Prints the kernels that take most of a population's time, and how far all is from what memory bandwidth allows."""
    net, task, archs = example(chosen)
    passes = len(task.train) + len(task.validation)
    largest = passes * len(archs) * moved_bytes(net, net.space.largest())
    bytes_moved = {"prefix": passes * sum(moved_bytes(net, arch) for arch in archs), "masked": largest}
    kind = jax.devices()[0].device_kind
    speed = next((speed for name, speed in BANDWIDTH.items() if name in kind), None)
    print(f"{kind}: {len(archs)} sub-networks, {passes} images each")
    for way in chosen.words or ["prefix", "masked"]:
        scorer = bound(way, net, task, archs, chosen.small)
        measure(scorer, archs)
        scorer.forget()
        began = perf_counter()
        measure(scorer, archs)
        wall = perf_counter() - began
        scorer.forget()
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                measure(scorer, archs)
            with open_compressed(next(Path(folder).rglob("*.trace.json.gz"))) as file:
                events = load(file)["traceEvents"]
        moved = bytes_moved[way.partition("+")[0]]  # Without what `prefix` shares.
        limit = (
            ""
            if speed is None
            else f", which take {moved / speed:.3f} s at {speed / 1e12} TB/s: {wall * speed / moved:.1f} times"
        )
        print(f"\n{way}: {wall:.3f} s for {moved / 1e9:.1f} GB of maps{limit}")
        show_kernels(events, wall)


def show_kernels(events, wall):
    """Prints the events of the accelerator (on a CPU: of XLA's threads), by name: milliseconds, number, name.

    What is left of `wall`, the seconds without a trace, is waiting for the host.
    """
    threads = {(e["pid"], e.get("tid")): e["args"].get("name", "") for e in events if e.get("name") == "thread_name"}
    processes = {e["pid"]: e["args"].get("name", "") for e in events if e.get("name") == "process_name"}
    devices = {pid for pid, name in processes.items() if "GPU" in name or "TPU" in name}
    totals = defaultdict(lambda: [0.0, 0])
    for event in events:
        name = str(event.get("name", ""))
        thread = threads.get((event.get("pid"), event.get("tid")), "")
        on_device = event.get("pid") in devices and "Stream" in thread
        on_host = not devices and not name.startswith("$") and "Execute" not in name
        if event.get("ph") == "X" and (on_device or on_host):
            totals[name][0] += event.get("dur", 0) / 1e3
            totals[name][1] += 1
    spent, number = (sum(column) for column in zip(*totals.values(), strict=True)) if totals else (0, 0)
    print(f"  {spent:10.1f} ms {number:7d} x  in all; {1e3 * wall - spent:.1f} ms of the time in none")
    for name, (spent, number) in sorted(totals.items(), key=lambda item: -item[1][0])[:SHOWN]:
        print(f"  {spent:10.1f} ms {number:7d} x  {name[:90]}")


def agreement(chosen):
    """Compares the evaluations.csv of two runs that measured the same networks."""
    one, other = (list(csv.DictReader(Path(name).read_text().splitlines())) for name in chosen.words)
    genes = list(one[0])[list(one[0]).index("source") + 1 : list(one[0]).index("accuracy_top1")]
    same = [[row[gene] for gene in genes] for row in one] == [[row[gene] for gene in genes] for row in other]
    print(f"the same {len(one)} networks in the same order: {same}")
    for metric in ("accuracy_top1", "loss", "macs"):
        pair = [np.array([float(row[metric]) for row in rows]) for rows in (one, other)]
        print(f"{metric}: largest difference {np.abs(pair[0] - pair[1]).max():.1e} of at most {pair[0].max():.6g}")


def overhead(chosen):
    """Prints the seconds of a search of a table by the default tactic, with a compilation cache that its first fills."""
    cache_programs()
    evaluations = 30 if chosen.small else 250
    with tempfile.TemporaryDirectory() as folder:
        table, rng = Path(folder) / "table.csv", np.random.default_rng(0)
        options = np.stack(np.meshgrid(*[range(3)] * 8), -1).reshape(-1, 8)
        quality = np.tanh(options @ rng.normal(size=(8, 4)) / 4) @ rng.normal(size=4)
        rows = (",".join(map(str, [*row, value, row.sum()])) for row, value in zip(options, quality, strict=True))
        names = [f"g{i}" for i in range(8)]
        table.write_text("\n".join([",".join([*names, "quality", "size"]), *rows]) + "\n")
        net = supernets.create("tabular", table=str(table), genes=names)
        for seed in range(3):
            began = perf_counter()
            nasjax.search(net, objectives=["max:quality", "min:size"], evaluations=evaluations, seed=seed)
            print(f"search {seed + 1} of {evaluations} evaluations: {perf_counter() - began:.2f} s")


PARTS = {part.__name__: part for part in (first, kernels, precision, agreement, overhead)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--networks", type=int, default=16)
    parser.add_argument("--supernet", default="ofa_mbv3_d234_e346_k357_w1.0")
    chosen = parser.parse_args()
    PARTS[chosen.part](chosen)


if __name__ == "__main__":
    main()
