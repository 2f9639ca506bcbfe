"""What each way of evaluation costs, compiling and computing apart: the constants of `evaluator=auto`.

    python benchmarks/strategies.py [SUPERNET[:PIXELS] ...]

For each super-network (the digits, and Once-for-All's MobileNetV3 and ResNet50 at 64 pixels): CPU seconds that compiling
takes until the first populations have been scored, and CPU seconds for a sub-network once all is compiled, beside
multiply-accumulates, operations and branches of stages. Weights are random, images noise.
"""

import sys
from time import process_time

import jax
import numpy as np

from nasjax import supernets
from nasjax.evaluation import STRATEGIES
from nasjax.evaluation.memory import operations
from nasjax.evaluation.switch import branches
from nasjax.hardware.costs import cost_tables
from nasjax.tasks.base import Split
from nasjax.tasks.image_classification import ImageClassification

CALIBRATION, IMAGES, BATCH, POPULATION = 100, 200, 100, 16
DEFAULT = ("digits:8", "ofa_mbv3_d234_e346_k357_w1.0:64", "ofa_resnet50:64")


def measure(name: str, pixels: int) -> None:
    """Prints a line for each strategy."""
    net = supernets.create("digits") if name == "digits" else supernets.create(name, image_size=pixels)
    rng = np.random.default_rng(0)
    shape = net.inputs(1).shape[1:]

    def split(number: int) -> Split:
        return Split(rng.normal(size=(number, *shape)).astype(np.float32), rng.integers(0, 10, number).astype(np.int32))

    task = ImageClassification(split(CALIBRATION), split(IMAGES), split(1), 10 if name == "digits" else 1000)
    archs = np.asarray(net.space.sample(jax.random.key(0), 2 * POPULATION))
    costs = cost_tables(net)["macs"]
    mean, largest = costs.exact(archs).mean() / 1e6, costs.exact(net.space.largest()[None])[0] / 1e6
    print(f"{name} {pixels}: largest {largest:.2f}, mean {mean:.2f} million multiply-accumulates", end=", ")
    print(f"{operations(net)} operations, {branches(net)} branches", flush=True)
    for strategy, config in STRATEGIES.items():
        evaluator = config(batch=BATCH, calibration_examples=CALIBRATION, chunk=POPULATION).bind(net, task)
        began = process_time()
        for start in range(0, len(archs), evaluator.chunk):
            evaluator(archs[start : start + evaluator.chunk])
        first = process_time() - began
        times = []
        for _ in range(3):
            evaluator.forget()
            began = process_time()
            for start in range(0, len(archs), evaluator.chunk):
                evaluator(archs[start : start + evaluator.chunk])
            times.append((process_time() - began) / len(archs))
        second = float(np.median(times))
        print(
            f"  {strategy:8} compiling {first - len(archs) * second:6.1f} s, {1e3 * second:8.2f} ms a sub-network",
            flush=True,
        )


if __name__ == "__main__":
    for word in sys.argv[1:] or DEFAULT:
        name, _, pixels = word.partition(":")
        measure(name, int(pixels or 64))
