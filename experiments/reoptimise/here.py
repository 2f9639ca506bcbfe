"""Fronts found for this machine with one and two threads, batch 1 and 32, measured on each other's target.

    python experiments/reoptimise/here.py FRONTS.csv LATENCIES.jsonl [EVALUATIONS [SECONDS [PIXELS]]]

Once-for-All's MobileNetV3 at 96 pixels: latencies are measured by nasjax (`hardware=cpu`: the table, the model inside the
search, all validated networks whole), each front is found by `ehvi` within 100 validations, and all networks of all
fronts are measured on all four targets, for at most 3 seconds each. There are no trained weights here: accuracy is the
surrogate's of experiments/tactics (fitted at 224 pixels), the same for every target. Reference: 70 % and the largest
network's latency. Those measurements are new ones, of every front: what a front's own search measured chose its networks,
and flatters them. They are made in three rounds over all targets, whose medians count; what two rounds differ by is printed.

What was timed is kept in LATENCIES.jsonl, the rounds in LATENCIES-again-0.jsonl and so on, and the search repeats itself:
the same command goes on where it was killed.
Nothing else should run on the machine meanwhile. NASJAX_DATA as in experiments/latency.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from recorded import anytime, front_of, fronts, problems

from nasjax import supernets
from nasjax.hardware.profiling import profiling
from nasjax.hardware.timer import Timer

TARGETS = {f"{threads}-thread_batch-{batch}": (threads, batch) for threads in (1, 2) for batch in (1, 32)}

ROUNDS = 3
"""How often every front is measured on every target."""


def profiled(net, name, file, seconds):
    """The profile of a target; a line for every twentieth program that is timed."""
    threads, batch = TARGETS[name]
    steps = profiling(net, {"name": "cpu", "threads": threads, "batch": batch, "file": str(file), "seconds": seconds})
    while True:
        try:
            now = next(steps)
        except StopIteration as end:
            print(f"{name}: {end.value.summary()}", flush=True)
            return end.value
        if now.done % 20 == 0:
            print(f"{name}: {now.done} of {now.planned} programs timed", flush=True)


def unseen(made, file):
    """The same target with nothing measured yet: what its search has chosen by is not what its front is worth."""
    target = made.target
    setting = {"within": target.within, "seconds": target.seconds}
    return replace(made, timer=Timer(target.open(), file, setting, made.timer.reference_pace))


def differing(rounds):
    """The median over networks and over pairs of rounds of how much more the slower one takes. `rounds`: front by front."""
    rows = np.stack([np.concatenate(measured) for measured in rounds])
    return np.median([np.maximum(a, b) / np.minimum(a, b) - 1 for a, b in combinations(rows, 2)])


def searched(problem, made, reference, evaluations):
    """The front of a target: accuracy measured, latency measured and, inside the search, estimated."""

    def values(archs):
        return np.stack([problem.true(archs)[:, 0], made.measure(archs)], 1)

    target = fronts.retargeted(problem, values, (None, made.model.estimate), reference)
    archs, measured = anytime.nasjax_tactic("ehvi", target, evaluations, 0)
    return archs[front_of(measured)]


def main(path, file, evaluations=100, seconds=3.0, pixels=96):
    problem = problems.create("surrogate_blend")
    net = supernets.abstract(problems.surrogate.NAME, image_size=int(pixels))
    found = {}
    for name in TARGETS:
        made = profiled(net, name, Path(file), float(seconds))
        worst = float(made.measure(problem.space.largest()[None])[0])
        archs = searched(problem, made, np.array([-70.0, worst]), int(evaluations))
        found[name] = (made, worst, archs)
        made.timer.close()
        print(f"{name}: a front of {len(archs)} networks", flush=True)
    again = defaultdict(list)
    for number in range(ROUNDS):
        for target, (made, _, _) in found.items():
            made = unseen(made, Path(file).with_name(f"{Path(file).stem}-again-{number}.jsonl"))
            again[target].append([made.measure(archs) for _, _, archs in found.values()])
            print(f"{target}: every front is measured, round {number + 1} of {ROUNDS}", flush=True)
            made.timer.close()
    # At the end, so that the file is whole or not there.
    Path(path).unlink(missing_ok=True)
    for target, rounds in again.items():
        print(f"{target}: two rounds differ by {100 * differing(rounds):.1f} % (median over networks and rounds)")
        for (source, (_, _, archs)), *measured in zip(found.items(), *rounds, strict=True):
            points = np.stack([-problem.true(archs)[:, 0], np.median(measured, 0)], 1)
            fronts.write(path, f"ofa_{pixels}px", 0, source, target, points, (70.0, found[target][1]))
    fronts.main(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
