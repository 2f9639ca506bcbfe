"""BLEU of random sub-networks of a trained super-network, beside its largest and smallest.

    python experiments/translation/measure.py WEIGHTS.safetensors MULTI30K OUT.csv [NETWORKS [SENTENCES]]

SENTENCES (500) random validation sentences are translated by NETWORKS (200) random sub-networks of seed 0: half are drawn
from all, of which most have all layers, half with each gene drawn by itself. Rows are appended as soon as networks are
measured; networks that are in the file are skipped, so that an interrupted command can be repeated.
"""

import csv
import sys
from pathlib import Path

import jax
import multi30k
import numpy as np

from nasjax.evaluation import EVALUATORS
from nasjax.hardware.costs import cost_tables

CHUNK = 8


def main(weights, folder, out, networks=200, sentences=500):
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent / ".cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    net, task = multi30k.network(weights), multi30k.task(folder)
    task.check(net)
    drawn = np.random.default_rng(0).permutation(len(task.validation))[:sentences]
    task = task.changed(validation=task.validation.take(np.sort(drawn)))
    evaluator = EVALUATORS["switch"](calibration_examples=0, chunk=CHUNK).bind(net, task)
    some = net.space.sample(jax.random.key(0), networks // 2), net.space.sample_raw(jax.random.key(1), networks // 2)
    archs = np.concatenate([[net.space.largest()], [net.space.smallest()], *map(np.asarray, some)]).astype(np.int32)
    costs = cost_tables(net.shapes(task.steps))
    header = [*net.space.names, *evaluator.metrics, *(f"{name}_se" for name in evaluator.metrics), "macs"]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    if not Path(out).exists():
        Path(out).write_text(",".join(header) + "\n")
    done = len(Path(out).read_text().splitlines()) - 1
    for first in range(done, len(archs), CHUNK):
        rows = archs[first : first + CHUNK]
        found = {**evaluator(rows), "macs": costs["macs"].exact(rows)}
        with open(out, "a", newline="") as file:
            for i, arch in enumerate(rows):
                choices = net.space.decode(arch)
                genes = [choices.get(name, "") for name in net.space.names]
                csv.writer(file, lineterminator="\n").writerow(
                    [*genes, *(f"{found[name][i]:.8g}" for name in header[len(genes) :])]
                )
        print(f"{first + len(rows)} of {len(archs)}: BLEU {np.round(found['bleu'], 2).tolist()}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
