"""Agreement of a latency table with measurements of whole translation networks.

    python experiments/translation/latency.py OUT.csv KEPT.jsonl [STEPS [BEAMS [NETWORKS]]]

The table: every stage's choices timed once, decoder stages for one step of BEAMS (5) continuations, times STEPS (19) tokens;
its sum is calibrated on 24 whole networks as in a search. Then NETWORKS (60) random other sub-networks are measured whole:
the encoder, and STEPS steps of greedy decoding. Batch 1, on the processors that the process may use (`taskset -c 0`: one).
What was measured is kept in KEPT.jsonl. 1,000 further random networks are written with estimates only.
"""

import csv
import sys
from pathlib import Path

import jax
import multi30k
import numpy as np
from scipy.stats import kendalltau

from nasjax.hardware.profiling import networks_to_measure, profile

FITTED, STEPS, BEAMS, SAMPLES = 24, 19, 5, 1000


def main(out, kept, steps=STEPS, beams=BEAMS, number=60):
    net = multi30k.network().shapes(steps, beams)
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
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]))
