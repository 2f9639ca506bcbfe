"""Time to score a population with re-calibrated batch norms: nasjax against PyTorch, as Once-for-All has it and tuned.

    pip install torch pillow tqdm pyyaml && pip install --no-deps ofa && python benchmarks/evaluator.py

All sides have the same weights, architectures and images, and run in one process, in turn (A B A B), with the same number
of threads and the same malloc settings:

- recipe: PyTorch, as Once-for-All's users run it: extract the sub-network, `set_running_statistics`, validate;
- tuned: PyTorch without extraction, channels last, statistics from a forward pass in training mode (cumulative mean), and
  images scored in the batches that are quickest for one network, of `--batch` and those of SCORED;
- graphed (on a GPU): tuned, with a CUDA graph of every network's forward pass;
- masked, switch, prefix: nasjax's evaluators, as ways.py names them; `prefix` starts each time with an empty cache.

Populations: `random`, from the whole space; `evolved`, children of four parents with two genes changed, like a generation of
a search; `front`, the best networks of a table by non-dominated sorting of accuracy_top1 and macs. Printed are the CPU time
of the process, which other processes disturb less, and the wall-clock time, on a GPU only the latter; compilation and
extraction apart. The last column is the largest difference of a loss from the recipe's.
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
    parser.add_argument("--tf32", action="store_true", help="on a GPU: all sides multiply in TF32")
    parser.add_argument("--kind", default="random", choices=("random", "evolved", "front"))
    parser.add_argument("--table", help="for a front: measured networks, as `nasjax import-results` writes them")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--images", type=int, default=600, help="images to validate")
    parser.add_argument("--calibration", type=int, default=2000, help="images to re-calibrate batch norms")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=float, default=4.0, help="memory budget of nasjax, in GB")
    parser.add_argument(
        "--strategies", default="switch,prefix", help="masked (slow on a CPU), switch, prefix, prefix+precision=bfloat16 …"
    )
    return parser.parse_args()


ARGUMENTS = arguments()
if any(os.environ.get(name) != value for name, value in SETTINGS.items()):  # malloc reads them when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
os.environ["OMP_NUM_THREADS"] = str(ARGUMENTS.threads)
if ARGUMENTS.device == "cpu" and hasattr(os, "sched_setaffinity"):  # XLA counts its processors when it starts
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-ARGUMENTS.threads :])

import copy
import tempfile
import types
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import jax
import numpy as np
import torch
from ways import evaluator

# The original's data pipeline needs torchvision, which nothing here uses.
sys.modules["ofa.utils.my_dataloader"] = types.ModuleType("ofa.utils.my_dataloader")
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAResNets
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

from nasjax import supernets
from nasjax.evaluation import EVALUATORS, measure
from nasjax.pareto import non_dominated_sort
from nasjax.runs.csv_io import read_architectures
from nasjax.supernets.ofa.lists import to_ofa
from nasjax.tasks import ImageClassification, Split

CLOCK = process_time if ARGUMENTS.device == "cpu" else perf_counter
"""On a GPU wall-clock time, since the process waits while the GPU works. Every side ends with numbers on the host."""

SCORED = (256, 512, 1024)
"""Numbers of images at a time that the tuned PyTorch tries, on a GPU."""

UNIT = "CPU s" if ARGUMENTS.device == "cpu" else "s"

NETS = {
    "ofa_mbv3_d234_e346_k357_w1.0": lambda: OFAMobileNetV3(
        dropout_rate=0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    ),
    "ofa_resnet50": lambda: OFAResNets(
        dropout_rate=0, depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35], width_mult_list=[0.65, 0.8, 1.0]
    ),
}


def population(space, kind, number):
    """Returns distinct canonical architectures of that kind."""
    if kind == "front":
        archs, rows = read_architectures("--table", Path(ARGUMENTS.table), space)
        costs = np.array([(-float(row["accuracy_top1"]), float(row["macs"])) for row in rows])
        return archs[np.lexsort((costs[:, 0], np.asarray(non_dominated_sort(jax.numpy.asarray(costs)))))[:number]]
    if kind == "random":
        return np.asarray(space.sample(jax.random.key(0), number))
    rng = np.random.default_rng(0)
    parents = np.asarray(space.sample(jax.random.key(0), 4))
    children = {}
    while len(children) < number:
        child = parents[rng.integers(len(parents))].copy()
        for gene in rng.choice(len(space.genes), 2, replace=False):
            child[gene] = rng.integers(space.counts[gene])
        children[space.canonical(child).tobytes()] = space.canonical(child)
    return np.stack(list(children.values()))


class Torch:
    """Once-for-All's recipe in PyTorch: images as channels-first batches, mean losses."""

    def __init__(self, net, task, lists, calibration, device):
        self.net, self.lists, self.device = net.to(device).eval(), lists, device
        self.calibration = [self.tensor(batch) for batch in calibration]
        images, labels = task.validation.inputs, task.validation.targets
        parts = range(0, len(labels), ARGUMENTS.batch)
        self.images = [self.tensor(images[i : i + ARGUMENTS.batch]) for i in parts]
        self.labels = [torch.from_numpy(labels[i : i + ARGUMENTS.batch]).long().to(device) for i in parts]
        self.extracting = 0.0

    def tensor(self, images):
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(self.device)

    def loss(self, net):
        total = sum(
            float(torch.nn.functional.cross_entropy(net(images), labels, reduction="sum"))
            for images, labels in zip(self.images, self.labels, strict=True)
        )
        return total / sum(map(len, self.labels))

    @torch.no_grad()
    def recipe(self):
        """Returns the loss of every network."""
        losses, self.extracting = [], 0.0
        for lists in self.lists:
            began = CLOCK()
            self.net.set_active_subnet(**lists)
            small = self.net.get_active_subnet(preserve_weight=True).to(self.device).eval()
            self.extracting += CLOCK() - began
            set_running_statistics(small, [(images, None) for images in self.calibration])
            losses.append(self.loss(small))
        return np.array(losses)


class Tuned(Torch):
    """The same without extraction, channels last, re-calibrated by a forward pass in training mode."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.net = self.net.to(memory_format=torch.channels_last)
        self.norms = [module for module in self.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in self.norms:
            norm.momentum = None  # the cumulative mean
        if self.device == "cuda":
            self.batched(min((ARGUMENTS.batch, *SCORED), key=self.seconds))

    def batched(self, size):
        """Cuts the validation images into batches of so many."""
        images, labels = torch.cat(self.images), torch.cat(self.labels)
        self.images = [part.contiguous(memory_format=torch.channels_last) for part in images.split(size)]
        self.labels = list(labels.split(size))

    @torch.no_grad()
    def seconds(self, size):
        """The seconds that scoring one network takes in batches of that size, once it has run."""
        self.batched(size)
        self.net.set_active_subnet(**self.lists[0])
        self.loss(self.net)
        began = perf_counter()
        self.loss(self.net)
        return perf_counter() - began

    def tensor(self, images):
        return super().tensor(images).contiguous(memory_format=torch.channels_last)

    def replayed(self):
        """Returns the active network as a CUDA graph of one batch's pass; smaller batches run without it."""
        held, others = torch.empty_like(self.images[0]), torch.cuda.Stream()
        held.copy_(self.images[0])
        others.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(others):
            self.net(held)  # Libraries choose their kernels before the capture.
        torch.cuda.current_stream().wait_stream(others)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.net(held)

        def run(images):
            if images.shape != held.shape:
                return self.net(images)
            held.copy_(images)
            graph.replay()
            return outputs

        return run

    @torch.no_grad()
    def tuned(self, graphed=False):
        """Returns the loss of every network."""
        losses = []
        for lists in self.lists:
            self.net.set_active_subnet(**lists)
            for norm in self.norms:
                norm.reset_running_stats()
            self.net.train()
            for images in self.calibration:
                self.net(images)
            self.net.eval()
            losses.append(self.loss(self.replayed() if graphed else self.net))
        return np.array(losses)


def ours(evaluator, archs):
    """Returns a function that computes all losses; only compiled programs are kept from call to call."""

    def run():
        evaluator.forget()
        return measure(evaluator, archs)["loss"]

    return run


def main():
    if jax.default_backend() != ARGUMENTS.device:
        sys.exit(f"--device {ARGUMENTS.device}: JAX runs on {jax.default_backend()} here; JAX_PLATFORMS chooses another")
    if ARGUMENTS.device == "gpu" and not torch.cuda.is_available():
        sys.exit("--device gpu: this PyTorch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = ARGUMENTS.tf32
    if not ARGUMENTS.tf32:  # It is JAX's default.
        jax.config.update("jax_default_matmul_precision", "highest")
    torch.set_num_threads(ARGUMENTS.threads)
    torch.manual_seed(0)
    made = NETS[ARGUMENTS.supernet]()
    rng = np.random.default_rng(0)

    def split(number):
        images = rng.standard_normal((number, ARGUMENTS.size, ARGUMENTS.size, 3), np.float32)
        return Split(images, rng.integers(0, 1000, number).astype(np.int32))

    task = ImageClassification(split(ARGUMENTS.calibration), split(ARGUMENTS.images), split(1), 1000)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(made.state_dict(), Path(folder) / "weights.pth")
        net = supernets.create(ARGUMENTS.supernet, checkpoint=str(Path(folder) / "weights.pth"), image_size=ARGUMENTS.size)
    archs = population(net.space, ARGUMENTS.kind, ARGUMENTS.population)
    lists = [to_ofa(net, net.space.decode(arch)) for arch in archs]
    settings = {"batch": ARGUMENTS.batch, "calibration_examples": ARGUMENTS.calibration, "chunk": ARGUMENTS.population,
                "memory_gb": ARGUMENTS.memory}  # fmt: skip
    calibration = EVALUATORS["masked"](**settings).calibration(net, task)
    device = "cuda" if ARGUMENTS.device == "gpu" else "cpu"
    recipe = Torch(copy.deepcopy(made), task, lists, calibration, device)
    tuned = Tuned(made, task, lists, calibration, device)
    sides = {"recipe": recipe.recipe, "tuned": tuned.tuned}
    if device == "cuda":
        sides["graphed"] = lambda: tuned.tuned(graphed=True)
        print(f"tuned: {len(tuned.images[0])} images at a time", file=sys.stderr)
    sides |= {way: ours(evaluator(way, **settings).bind(net, task), archs) for way in ARGUMENTS.strategies.split(",")}

    first, losses = {}, {}
    times = {name: [] for name in sides}

    def timed(name):
        began, used = perf_counter(), CLOCK()
        sides[name]()
        times[name].append((CLOCK() - used, perf_counter() - began))
        print(f"{name}: {times[name][-1][0]:.2f} {UNIT}", file=sys.stderr)

    for name, run in sides.items():
        began, used = perf_counter(), CLOCK()
        losses[name] = run()
        first[name] = perf_counter() - began, CLOCK() - used
        print(f"{name}: once, with compilation, {first[name][1]:.0f} {UNIT}", file=sys.stderr)
        if ARGUMENTS.rounds == 1:  # Known at once, whatever becomes of the other sides.
            timed(name)
    for _ in range(ARGUMENTS.rounds if ARGUMENTS.rounds > 1 else 0):
        for name in sides:
            timed(name)

    kind = jax.devices()[0].device_kind if ARGUMENTS.device == "gpu" else "CPU"
    print(f"{ARGUMENTS.supernet}, {len(archs)} {ARGUMENTS.kind} sub-networks, {ARGUMENTS.calibration} + {ARGUMENTS.images} "
          f"images of {ARGUMENTS.size} pixels, batch {ARGUMENTS.batch}, {kind}, {ARGUMENTS.threads} threads")  # fmt: skip
    images = len(archs) * (ARGUMENTS.calibration + ARGUMENTS.images)
    width = max(map(len, sides)) + 1
    print(f"{'':{width}}{UNIT:>9}{'wall s':>9}{'first s':>9}{'images x networks / s':>30}{'x recipe':>10}{'x tuned':>9}"
          f"{'x graphed':>11}{'off by':>9}")  # fmt: skip
    cpus = {name: median(cpu for cpu, _ in rows) for name, rows in times.items()}
    for name, rows in times.items():
        off = np.abs(losses[name] - losses["recipe"]).max()
        print(f"{name:{width}}{cpus[name]:9.2f}{median(wall for _, wall in rows):9.2f}{first[name][0]:9.1f}"
              f"{images / cpus[name]:30.0f}{cpus['recipe'] / cpus[name]:10.2f}{cpus['tuned'] / cpus[name]:9.2f}"
              f"{cpus.get('graphed', np.nan) / cpus[name]:11.2f}{off:9.0e}"
              f"   {' '.join(f'{cpu:.2f}' for cpu, _ in rows)}")  # fmt: skip
    print(f"of the recipe's, extraction: {recipe.extracting:.2f} {UNIT}")


if __name__ == "__main__":
    main()
