"""CPU time and memory of evaluating a population, by the number of sub-networks and of images.

    python benchmarks/growth.py [EVALUATOR ...]

The digits super-network, re-calibrated on 300 images; whole populations at once (`masked`: 16), with empty caches each time.
First all sub-networks are scored one by one, which compiles the programs. Memory is the growth of the process's peak since
then, populations in ascending order.
"""

import resource
import sys
from dataclasses import replace
from time import process_time

import jax
import numpy as np

from nasjax import supernets, tasks
from nasjax.evaluation import STRATEGIES
from nasjax.tasks import Split

POPULATIONS = (16, 32, 64, 128, 256)
IMAGES = (150, 300, 600)


def main(ways: list[str]) -> None:
    net, task = supernets.create("digits"), tasks.create("digits")
    archs = np.asarray(net.space.sample(jax.random.key(0), POPULATIONS[-1]))
    split = task.validation
    print(f"{'way':8}{'sub-networks':>14}{'images':>10}{'CPU s':>8}{'ms a sub-network':>18}{'MB more':>9}")
    for way in ways:
        for images in IMAGES:
            part = replace(task, validation=Split(split.inputs[:images], split.targets[:images]))
            chunk = 16 if way == "masked" else POPULATIONS[-1]
            evaluator = STRATEGIES[way](chunk=chunk).bind(net, part)
            for arch in archs:
                evaluator(arch[None])
            least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            for number in POPULATIONS if images == IMAGES[-1] else POPULATIONS[:1]:
                evaluator.forget()
                began = process_time()
                for start in range(0, number, evaluator.chunk):
                    evaluator(archs[start : min(number, start + evaluator.chunk)])
                took = process_time() - began
                most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
                print(f"{way:8}{number:14}{images:10}{took:8.2f}{1e3 * took / number:18.2f}{most - least:9.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(STRATEGIES))
