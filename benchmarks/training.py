"""Time of a sandwich step: nasjax against PyTorch, with Once-for-All's layers.

    pip install torch pillow tqdm pyyaml && pip install --no-deps ofa && python benchmarks/training.py

A step trains the largest sub-network on the labels, and the smallest and two random ones on the largest's probabilities; one
step of SGD with Nesterov momentum follows. Both sides have the same weights, images, labels and random architectures in each
step, and run in one process, in turn (A B A B), with the same number of threads and the same malloc settings. Printed are
the CPU time of the process (on a GPU wall-clock time) of a step, compilation apart, and the first losses, which must agree.
"""
# ruff: noqa: E402

import argparse
import os
import sys

SETTINGS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--supernet", default="ofa_mbv3_d234_e346_k357_w1.0", choices=("ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50")
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--tf32", action="store_true", help="on a GPU: both sides multiply in TF32")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


ARGUMENTS = arguments()
if any(os.environ.get(name) != value for name, value in SETTINGS.items()):  # malloc reads them when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
os.environ["OMP_NUM_THREADS"] = str(ARGUMENTS.threads)
if hasattr(os, "sched_setaffinity"):  # XLA counts its processors when it starts
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-ARGUMENTS.threads :])

import tempfile
import types
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import jax
import numpy as np
import torch

# The original's data pipeline needs torchvision, which nothing here uses.
sys.modules["ofa.utils.my_dataloader"] = types.ModuleType("ofa.utils.my_dataloader")
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAResNets

from nasjax import supernets
from nasjax.supernets.ofa.lists import to_ofa
from nasjax.tasks import ImageClassification, Split
from nasjax.training import SandwichConfig, batches
from nasjax.training.loop import Training

CLOCK = process_time if ARGUMENTS.device == "cpu" else perf_counter
RATE = 0.01

NETS = {
    "ofa_mbv3_d234_e346_k357_w1.0": lambda: OFAMobileNetV3(
        dropout_rate=0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    ),
    "ofa_resnet50": lambda: OFAResNets(
        dropout_rate=0, depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35], width_mult_list=[0.65, 0.8, 1.0]
    ),
}


class Torch:
    """The step in PyTorch; images are channels last where that is faster."""

    def __init__(self, net, task, rows, lists, device):
        self.net = net.to(device).to(memory_format=torch.channels_last).train()
        self.optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, nesterov=True)
        images = torch.from_numpy(np.ascontiguousarray(task.train.inputs.transpose(0, 3, 1, 2))).to(device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(task.train.targets).long().to(device)
        self.rows, self.lists, self.done = torch.from_numpy(np.asarray(rows)).to(device), lists, 0

    def steps(self, number):
        """Returns the losses of the next steps."""
        losses = []
        for _ in range(number):
            rows, lists = self.rows[self.done % len(self.rows)], self.lists[self.done % len(self.lists)]
            images, labels = self.images[rows], self.labels[rows]
            self.optimiser.zero_grad(set_to_none=False)
            total, wanted = 0.0, None
            for one in lists:
                self.net.set_active_subnet(**one)
                logits = self.net(images)
                loss = torch.nn.functional.cross_entropy(logits, labels if wanted is None else wanted)
                wanted = logits.detach().softmax(1) if wanted is None else wanted
                (loss / len(lists)).backward()  # At once, so that one network's activations are in memory.
                total = total + loss.detach() / len(lists)
            self.optimiser.step()
            self.done += 1
            losses.append(float(total))
        return losses


def main():
    if jax.default_backend() != ARGUMENTS.device:
        sys.exit(f"--device {ARGUMENTS.device}: JAX runs on {jax.default_backend()} here; JAX_PLATFORMS chooses another")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = ARGUMENTS.tf32
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if ARGUMENTS.tf32 else "highest")
    torch.set_num_threads(ARGUMENTS.threads)
    torch.manual_seed(0)
    made = NETS[ARGUMENTS.supernet]()
    # Steps follow one after the other, in as many programs as rounds.
    batches.MOST_STEPS = ARGUMENTS.steps
    number = ARGUMENTS.batch * ARGUMENTS.steps * (ARGUMENTS.rounds + 1)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((number, ARGUMENTS.size, ARGUMENTS.size, 3), np.float32)
    split = Split(images, rng.integers(0, 1000, number).astype(np.int32))
    task = ImageClassification(split, split.take(slice(1)), split.take(slice(1)), 1000)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(made.state_dict(), Path(folder) / "weights.pth")
        net = supernets.create(ARGUMENTS.supernet, checkpoint=str(Path(folder) / "weights.pth"), image_size=ARGUMENTS.size)
    config = SandwichConfig(epochs=1, batch=ARGUMENTS.batch, learning_rate=RATE, optimizer="sgd", schedule="constant",
                            warmup=0.0, weight_decay=0.0, shift=0, precision="float32")  # fmt: skip
    training = Training(config, net, task, jax.random.key(0))
    rows, archs = [], []
    for _, some, keys in batches.batches_of(training._buckets, jax.random.fold_in(jax.random.key(0), 0)):
        rows += list(np.asarray(some))
        archs += [net.space.sample_raw(jax.random.split(key)[1], 2) for key in keys]
    ends = [net.space.largest(), net.space.smallest()]
    lists = [[to_ofa(net, net.space.decode(np.asarray(arch))) for arch in (*ends, *some)] for some in archs]
    theirs = Torch(made, task, np.stack(rows), lists, "cuda" if ARGUMENTS.device == "gpu" else "cpu")

    began = perf_counter()
    states = training.run(training.begin())
    first = next(states)
    compiled = perf_counter() - began
    losses = theirs.steps(ARGUMENTS.steps)
    print(f"mean loss of the first {ARGUMENTS.steps} steps: nasjax {first.loss:.5f}, PyTorch {np.mean(losses):.5f}; "
          f"first call {compiled:.0f} s")  # fmt: skip
    times = {"nasjax": [], "PyTorch": []}
    for _ in range(ARGUMENTS.rounds):
        for name, side in (("nasjax", lambda: next(states)), ("PyTorch", lambda: theirs.steps(ARGUMENTS.steps))):
            began = CLOCK()
            side()
            times[name].append((CLOCK() - began) / ARGUMENTS.steps)
    for name, seconds in times.items():
        print(f"{name:8} {median(seconds):.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f})")
    ratio = median(t / n for t, n in zip(times["PyTorch"], times["nasjax"], strict=True))
    print(f"nasjax has {ratio:.2f} times PyTorch's speed")


if __name__ == "__main__":
    main()
