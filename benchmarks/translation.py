"""Sentences a second of beam search for a population of sub-networks: nasjax against PyTorch.

    pip install torch && python benchmarks/translation.py --threads 2

Both sides have the same weights, architectures and sentences, in the same batches of one padded length, and run in one
process, in turn (A B A B), with the same number of threads and the same malloc settings. The network is Hardware-aware
Transformers' super-network, `small` or as large as for IWSLT'14; beam 5, length penalty .6, until all beams are done.

- torch: each sub-network in PyTorch's layers (`tests/golden/torch_transformer.py`): scaled_dot_product_attention, the
  encoder's keys and values computed once, the decoder's cached and reordered by index_select, all on tensors, in inference
  mode; sentences that are done leave the batch, as in fairseq. Cutting the sub-networks is not timed;
- masked, switch, prefix: nasjax's evaluators; `prefix` starts each time with an empty cache;

With `--checkpoint` (as `nasjax train` writes it for these sizes) sentences are validation pairs of `--text`, a folder as
task.path is, of at most 24 tokens. Without one, weights and sentences (8 to 24 tokens) are random, and most translations end
only where there is no more room. Printed are sentences (times networks) a second of wall-clock time, the median and all
rounds; the first run, with compilation; and the share of translations that equal PyTorch's.
"""
# ruff: noqa: E402

import argparse
import os
import sys
import zlib

SETTINGS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--sizes", default="small", choices=("small", "iwslt"))
    parser.add_argument("--checkpoint", help="trained weights of nasjax")
    parser.add_argument("--text", help="folder of pairs, needed with a checkpoint")
    parser.add_argument("--population", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default="switch,prefix", help="of masked (slow on a CPU), switch, prefix")
    return parser.parse_args()


ARGUMENTS = arguments()
if any(os.environ.get(name) != value for name, value in SETTINGS.items()):  # malloc reads them when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
os.environ["OMP_NUM_THREADS"] = str(ARGUMENTS.threads)
if hasattr(os, "sched_setaffinity"):  # XLA counts its processors when it starts
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-ARGUMENTS.threads :])

from pathlib import Path
from statistics import median
from time import perf_counter

import jax
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "golden"))
import torch_transformer

from nasjax import supernets, tasks
from nasjax.evaluation import EVALUATORS
from nasjax.objectives import Objective
from nasjax.supernets.transformer_layers import END, PAD
from nasjax.tasks import Split, Task
from nasjax.tasks.beam_search import beam_search
from nasjax.tasks.translation import BUCKETS, room

BEAM, PENALTY, LONGEST = 5, 0.6, 24
SIZES = {
    "small": ("transformer_lt_wmt_en_de", {
        "source_words": 4000, "target_words": 4000, "encoder_layers": 3, "decoder_depths": (1, 2, 3), "positions": 256,
        "encoder_widths": (96, 128), "decoder_widths": (96, 128), "inner_width": 128, "heads": (2, 4), "hidden": (128, 256),
    }),
    "iwslt": ("transformer_lt_iwslt_de_en", {}),
}  # fmt: skip


class Decoding(Task):
    """Translations by beam search alone. Statistics: a column a sentence, with the fingerprint of its translation."""

    on_host = True
    objectives = (Objective("tokens", "min"),)

    def outputs(self, run, inputs):
        return beam_search(run, inputs, BEAM, PENALTY, room(inputs["target"].shape[1])).tokens

    def statistics(self, outputs, targets):
        rows = np.zeros((len(outputs), len(self.validation)))
        rows[np.arange(len(rows)), targets["row"]] = fingerprints(outputs)
        return rows

    def metrics(self, totals):
        return {"tokens": totals[0]}


def fingerprints(tokens):
    """A number for each row of tokens, the same whatever it is padded to."""
    return np.array([zlib.crc32(row[row != PAD].astype(np.int32).tobytes()) for row in np.asarray(tokens)], float)


def sentences(net):
    """Sources (sentences, time) and the padded length of each: of a task with a checkpoint, else random."""
    number = ARGUMENTS.sentences
    if ARGUMENTS.checkpoint:
        task = tasks.create("translation", path=ARGUMENTS.text, words=net.config.source_words, limit=0)
        split = task.validation.take(np.flatnonzero(task.validation.bucket <= LONGEST)[:number])
        return split.inputs["source"][:, :LONGEST], split.bucket
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, LONGEST + 1, number)
    source = np.full((number, LONGEST), PAD, np.int32)
    for row, length in zip(source, lengths, strict=True):
        row[: length - 1] = rng.integers(4, net.config.source_words, length - 1)
        row[length - 1] = END
    return source, np.asarray(BUCKETS, np.int32)[np.searchsorted(BUCKETS, lengths)]


class Torch:
    """All sub-networks in PyTorch, and the sentences in batches of one padded length."""

    def __init__(self, net, archs, source, bucket, device):
        self.nets = [torch_transformer.Translator(net, net.space.decode(arch)).eval().to(device) for arch in archs]
        self.batches = []
        for length in np.unique(bucket):
            rows = np.flatnonzero(bucket == length)
            for some in np.array_split(rows, -(-len(rows) // ARGUMENTS.batch)):
                self.batches.append((some, torch.from_numpy(source[some, :length]).long().to(device), room(int(length))))
        self.tokens = 0

    @torch.inference_mode()
    def __call__(self):
        """Fingerprints (networks, sentences)."""
        found = np.zeros((len(self.nets), sum(len(rows) for rows, _, _ in self.batches)))
        for own, net in zip(found, self.nets, strict=True):
            for rows, source, time in self.batches:
                tokens = torch_transformer.beam_search(net, source, BEAM, PENALTY, time)[0].cpu().numpy()
                own[rows] = fingerprints(tokens)
                self.tokens += int((tokens != PAD).sum())
        return found


def evaluated(way, net, task, archs):
    """A function that translates by an evaluator; only compiled programs are kept from call to call."""
    evaluator = EVALUATORS[way](batch=ARGUMENTS.batch, chunk=len(archs)).bind(net, task)

    def run():
        evaluator.forget()
        return evaluator.totals(archs).sums

    return run


def main():
    if jax.default_backend() != ARGUMENTS.device:
        sys.exit(f"--device {ARGUMENTS.device}: JAX runs on {jax.default_backend()} here; JAX_PLATFORMS chooses another")
    torch.set_num_threads(ARGUMENTS.threads)
    name, settings = SIZES[ARGUMENTS.sizes]
    net = supernets.create(name, **settings, checkpoint=ARGUMENTS.checkpoint, untrained=ARGUMENTS.checkpoint is None)
    archs = np.asarray(net.space.sample(jax.random.key(0), ARGUMENTS.population), np.int32).copy()
    archs[0] = net.space.largest()
    source, bucket = sentences(net)
    inputs = {"source": source, "target": np.full_like(source, PAD)}
    split = Split(inputs, {"row": np.arange(len(source))}, bucket)
    task = Decoding(split, split, split)
    rival = Torch(net, archs, source, bucket, "cuda" if ARGUMENTS.device == "gpu" else "cpu")
    sides = {"torch": rival} | {way: evaluated(way, net, task, archs) for way in ARGUMENTS.ways.split(",")}

    found, times = {}, {name: [] for name in sides}
    for round in range(1 + ARGUMENTS.rounds):
        for name, run in sides.items():
            began = perf_counter()
            found[name] = run()
            spent = perf_counter() - began
            times[name].append(spent)
            print(f"{name}: {spent:.2f} s{'' if round else ', with compilation'}", file=sys.stderr)
    number = found["torch"].size
    mean = rival.tokens / number / (1 + ARGUMENTS.rounds)
    kind = jax.devices()[0].device_kind if ARGUMENTS.device == "gpu" else "CPU"
    tokens = (source != PAD).sum(1).mean()
    print(f"{ARGUMENTS.sizes}, {len(archs)} sub-networks, {len(source)} sentences of {tokens:.1f} tokens, "
          f"translations of {mean:.1f}, batch {ARGUMENTS.batch}, {kind}, {ARGUMENTS.threads} threads")  # fmt: skip
    print(f"{'':10}{'sentences / s':>14}{'x torch':>9}{'first s':>9}{'equal %':>9}   seconds")
    for name, (first, *later) in times.items():
        equal = 100 * (found[name] == found["torch"]).mean()
        print(f"{name:10}{number / median(later):14.1f}{median(times['torch'][1:]) / median(later):9.2f}{first:9.1f}"
              f"{equal:9.1f}   {' '.join(f'{spent:.2f}' for spent in later)}")  # fmt: skip


if __name__ == "__main__":
    main()
