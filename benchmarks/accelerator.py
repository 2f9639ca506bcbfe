"""What an accelerator is measured for beside evaluator.py and step.py; `gpu.sh` runs all of them.

    python benchmarks/accelerator.py first [WAY ...]      # seconds to a full-size population's first result, and the second
    python benchmarks/accelerator.py kernels [WAY ...]    # where the time goes, by kernel, and what memory bandwidth allows
    python benchmarks/accelerator.py agreement FILE       # losses and predictions of a device, and how another's differ
    python benchmarks/accelerator.py overhead             # the default tactic's whole search of a table, three times

`--small` takes sizes for a rehearsal on a CPU, `--pixels` and `--supernet` another network. Images and weights are random.
"""

import argparse
import tempfile
from collections import defaultdict
from gzip import open as open_compressed
from json import load
from math import prod
from pathlib import Path
from time import perf_counter

import jax
import numpy as np

import nasjax
from nasjax import supernets
from nasjax.evaluation import EVALUATORS, measure
from nasjax.jaxprs import inner_jaxprs
from nasjax.predictors import GaussianProcess, Inputs
from nasjax.program_cache import cache_programs
from nasjax.tasks.base import Split
from nasjax.tasks.image_classification import ImageClassification

BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12}
"""Bytes a second, as the vendor states them."""

SHOWN = 25
"""Kernels that are listed."""


def example(chosen):
    """The super-network, a task of noise, and random sub-networks."""
    pixels, images, number = (32, 40, 3) if chosen.small else (chosen.pixels, 1000, 16)
    net = supernets.create(chosen.supernet, image_size=pixels)
    rng = np.random.default_rng(0)

    def split(number):
        return Split(rng.normal(size=(number, pixels, pixels, 3)).astype(np.float32), rng.integers(0, 1000, number))

    task = ImageClassification(split(images // 2), split(images), split(1), 1000)
    return net, task, np.asarray(net.space.sample(jax.random.key(0), number))


def bound(way, net, task, archs, small):
    size = 20 if small else 100
    settings = {"batch": size, "calibration_examples": len(task.train), "chunk": len(archs), "memory_gb": 4 if small else 40}
    return EVALUATORS[way](**settings).bind(net, task)


def first(chosen):
    """Prints the seconds until a population is scored for the first and for the second time in this process."""
    cache_programs()
    began = perf_counter()
    net, task, archs = example(chosen)
    made = perf_counter() - began
    for way in chosen.words or ["auto"]:
        began = perf_counter()
        evaluator = bound(way, net, task, archs, chosen.small)
        measure(evaluator, archs)
        once = perf_counter() - began
        evaluator.forget()
        began = perf_counter()
        measure(evaluator, archs)
        print(f"{way}: network {made:.1f} s, first result {once:.1f} s, again {perf_counter() - began:.2f} s")


def moved_bytes(net, arch):
    """Bytes of an example's maps that cross memory at least: results of convolutions and products, written and read once."""

    def results(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("conv_general_dilated", "dot_general"):
                yield from (prod(out.aval.shape) * out.aval.dtype.itemsize for out in equation.outvars)
            for inner in inner_jaxprs(equation.params):
                yield from results(inner)

    choice = tuple(map(int, arch))
    traced = jax.make_jaxpr(lambda x: net.forward(x, choice, None)[0])(net.example())
    return 2 * sum(results(traced.jaxpr))


def kernels(chosen):
    """Prints the kernels that take most of a population's time, and the time that memory bandwidth alone would allow."""
    net, task, archs = example(chosen)
    passes = len(task.train) + len(task.validation)
    bytes_moved = passes * sum(moved_bytes(net, arch) for arch in archs)
    largest = passes * len(archs) * moved_bytes(net, net.space.largest())
    kind = jax.devices()[0].device_kind
    speed = next((speed for name, speed in BANDWIDTH.items() if name in kind), None)
    limit = (
        "" if speed is None else f", {bytes_moved / speed:.3f} s at {speed / 1e12} TB/s (masked: {largest / speed:.3f} s)"
    )
    print(f"{kind}: {len(archs)} sub-networks, {passes} images each: {bytes_moved / 1e9:.1f} GB of maps{limit}")
    for way in chosen.words or ["prefix", "masked"]:
        evaluator = bound(way, net, task, archs, chosen.small)
        measure(evaluator, archs)
        evaluator.forget()
        with tempfile.TemporaryDirectory() as folder:
            began = perf_counter()
            with jax.profiler.trace(folder):
                measure(evaluator, archs)
            wall = perf_counter() - began
            with open_compressed(next(Path(folder).rglob("*.trace.json.gz"))) as file:
                events = load(file)["traceEvents"]
        print(f"\n{way}: {wall:.2f} s, traced")
        show_kernels(events)


def show_kernels(events):
    """Prints the events of the accelerator (on a CPU: of XLA's threads), by name: milliseconds, number, name."""
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
    print(f"  {sum(spent for spent, _ in totals.values()):10.1f} ms in all")
    for name, (spent, number) in sorted(totals.items(), key=lambda item: -item[1][0])[:SHOWN]:
        print(f"  {spent:10.1f} ms {number:7d} x  {name[:90]}")


def agreement(chosen):
    """Writes losses and predictions of this device to a file; or compares them, at two precisions, with those in it."""
    (name,) = chosen.words
    net, task, archs = example(chosen)
    inputs, predictor = Inputs(net.space), GaussianProcess()

    def computed():
        found = {way: measure(bound(way, net, task, archs, chosen.small), archs)["loss"] for way in ("masked", "prefix")}
        model = predictor.fit(inputs, archs, np.asarray(archs.sum(1) % 7, np.float32))
        return found | {"Gaussian process": np.asarray(predictor.predict(inputs, model, archs)[0])}

    if not Path(name).is_file():
        np.savez(name, **computed())
        return
    known = np.load(name)
    for precision in ("highest", "default"):
        with jax.default_matmul_precision(precision):
            for key, found in computed().items():
                difference = np.abs(found - known[key]).max() / np.abs(known[key]).max()
                print(f"{key}, {precision} precision: largest difference {difference:.1e} of the largest value")


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


PARTS = {part.__name__: part for part in (first, kernels, agreement, overhead)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--supernet", default="ofa_mbv3_d234_e346_k357_w1.0")
    chosen = parser.parse_args()
    PARTS[chosen.part](chosen)


if __name__ == "__main__":
    main()
