"""Agreement of a latency table with measurements of whole translation networks.

    python experiments/translation/latency.py NAME OUT.csv KEPT.jsonl [NETWORKS]

NAME: multi30k, or a super-network of Hardware-aware Transformers with random weights: transformer_lt_iwslt_de_en,
transformer_lt_wmt_en_de. The table: every stage's choices timed once, decoder stages for one step of five continuations,
times as many tokens as STEPS says; its sum is calibrated on 24 whole networks as in a search. Then NETWORKS (60) random
other sub-networks are measured whole: the encoder, and all steps. Batch 1, on the processors that the process may use
(`taskset -c 0`: one). What was measured is kept in KEPT.jsonl. 1,000 further random networks are written with estimates
only.
"""

import csv
import sys
from pathlib import Path

import jax
import multi30k
import numpy as np
from scipy.stats import kendalltau

from nasjax import supernets
from nasjax.hardware.profiling import networks_to_measure, profile

FITTED, BEAMS, SAMPLES = 24, 5, 1000

STEPS = {"multi30k": 19, "transformer_lt_iwslt_de_en": 23, "transformer_lt_wmt_en_de": 30}
"""Tokens of a translation: Multi30k's mean, and what Hardware-aware Transformers measures."""


def main(name, out, kept, number=60):
    net = multi30k.network() if name == "multi30k" else supernets.create(name, untrained=True, length=STEPS[name])
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    net = net.shapes(STEPS[name], BEAMS)
    made = profile(net, {"name": "cpu", "networks": FITTED, "seconds": 3.0, "file": kept})
    print(made.summary())
    seen = {arch.tobytes() for arch in made.archs}
    archs = networks_to_measure(net.space, number + FITTED)
    rest = np.stack([arch for arch in archs if arch.tobytes() not in seen])[:number]
    measured, estimates = made.measure(rest), made.model.exact(rest)
    made.timer.close()
    error = 100 * np.abs(estimates / measured - 1)
    tau = kendalltau(estimates, measured).statistic
    span = f"{measured.min():.2f} to {measured.max():.2f} ms"
    print(
        f"{len(rest)} networks, {span}: tau {tau:.3f}, error {error.mean():.1f} % (mean), {np.median(error):.1f} % (median)"
    )
    more = np.asarray(net.space.sample(jax.random.key(1), SAMPLES), np.int32)
    with Path(out).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*net.space.names, "estimate", "measured"])
        words = [*(f"{value:.5g}" for value in measured), *[""] * SAMPLES]
        for arch, estimate, word in zip([*rest, *more], [*estimates, *made.model.exact(more)], words, strict=True):
            choices = net.space.decode(arch)
            writer.writerow([*(choices.get(name, "") for name in net.space.names), f"{estimate:.5g}", word])


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
