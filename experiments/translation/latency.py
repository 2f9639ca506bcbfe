"""Agreement of a latency table with measurements of whole translation networks.

    taskset -c 0 python experiments/translation/latency.py NAME OUT.csv KEPT.jsonl [NETWORKS]

NAME: multi30k, or a super-network of Hardware-aware Transformers with random weights: transformer_lt_iwslt_de_en,
transformer_lt_wmt_en_de. The table: every stage's choices timed once, decoder stages for as many steps of five continuations
as STEPS says; its sum is calibrated on 24 whole networks as in a search. Then NETWORKS (60) other sub-networks are measured
whole: the encoder, and all steps. They are drawn as Hardware-aware Transformers draws them, each gene by itself, so that all
depths are equally frequent. On shared machines the pace changes for seconds, so they take turns: GROUP networks, ROUNDS
times, and the median counts. Batch 1, on the processors that the process may use (`taskset -c 0`: one). What was measured
for the table is kept in KEPT.jsonl. 1,000 further networks are written with estimates only.
"""

import csv
import os
import sys
import time
from pathlib import Path

import jax
import multi30k
import numpy as np
from scipy.stats import kendalltau

from nasjax import supernets
from nasjax.hardware.latency_table import extracted
from nasjax.hardware.measurement import Precision, compiled, measure_latency
from nasjax.hardware.pace import Pace
from nasjax.hardware.profiling import profile
from nasjax.host import processor_name

FITTED, BEAMS, SAMPLES = 24, 5, 1000

GROUP, ROUNDS, SECONDS = 15, 6, 0.7
"""Networks that take turns, their turns, and the seconds of each turn."""

STEPS = {"multi30k": 19, "transformer_lt_iwslt_de_en": 23, "transformer_lt_wmt_en_de": 30}
"""Tokens of a translation: Multi30k's mean, and what Hardware-aware Transformers measures."""


def in_turn(net, archs, reference):
    """Milliseconds of whole networks at a reference pace (networks, rounds)."""
    clock, cpu = time.perf_counter, jax.devices("cpu")[0]
    pace, threads = Pace(clock), len(os.sched_getaffinity(0))
    precision = Precision(within=0.0, seconds=SECONDS, least=SECONDS)
    found = np.zeros((len(archs), ROUNDS))
    for first in range(0, len(archs), GROUP):
        rows = range(first, min(first + GROUP, len(archs)))
        networks = [extracted(net, tuple(map(int, archs[row]))) for row in rows]
        programs = [compiled(network, network.inputs(1), cpu) for network in networks]
        for turn in range(ROUNDS):
            for row, program in zip(rows, programs, strict=True):
                given = {"batch": 1, "threads": threads, "device": processor_name(), "precision": precision, "pace": pace}
                found[row, turn] = measure_latency(program, clock, **given).at(reference).median
        print(f"{rows.stop} of {len(archs)} networks measured", flush=True)
    return found


def main(name, out, kept, number=60):
    net = multi30k.network() if name == "multi30k" else supernets.create(name, untrained=True, length=STEPS[name])
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    net = net.shapes(STEPS[name], BEAMS)
    made = profile(net, {"name": "cpu", "networks": FITTED, "seconds": 3.0, "file": kept})
    made.timer.close()
    print(made.summary(), flush=True)
    seen = {arch.tobytes() for arch in made.archs}
    drawn = np.unique(np.asarray(net.space.sample_raw(jax.random.key(1), SAMPLES), np.int32), axis=0)
    drawn = np.random.default_rng(0).permutation(np.stack([arch for arch in drawn if arch.tobytes() not in seen]))
    turns = in_turn(net, drawn[:number], made.timer.reference_pace)
    measured, estimates = np.median(turns, axis=1), made.model.exact(drawn)
    error = 100 * np.abs(estimates[:number] / measured - 1)
    span = f"{measured.min():.2f} to {measured.max():.2f} ms"
    halves = [np.median(turns[:, half::2], axis=1) for half in range(2)]
    tau, repeated = kendalltau(estimates[:number], measured).statistic, kendalltau(*halves).statistic
    print(f"{number} networks, {span}: tau {tau:.3f}, error {error.mean():.1f} % (mean), {np.median(error):.1f} % (median)")
    apart = 100 * np.median(np.abs(halves[0] / halves[1] - 1))
    print(f"even against odd turns: tau {repeated:.3f}, {apart:.1f} % apart (median)")
    with Path(out).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*net.space.names, "estimate", "measured"])
        words = [*(f"{value:.5g}" for value in measured), *[""] * (len(drawn) - number)]
        for arch, estimate, word in zip(drawn, estimates, words, strict=True):
            choices = net.space.decode(arch)
            writer.writerow([*(choices.get(name, "") for name in net.space.names), f"{estimate:.5g}", word])


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
