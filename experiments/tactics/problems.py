"""The problems that tactics are compared on: `create(name)` returns one, `NAMES` lists all.

- `surrogate_blend`, `surrogate_trees`: Once-for-All MobileNetV3, accuracy by a surrogate with noise (`surrogate.py`), macs
  exact. The reference point of the hypervolume is 70 % (the least accurate network has 71) and the largest network's macs.
- `…_zero`: the same with the default reference point of a search (0 %), where the smallest network earns most.
- `…_inner`: the same with a reference point (74 %, 420 million macs) that gives no credit for the extremes.
- `nb201:DATA:DEVICE`: all 15,625 cells of NAS-Bench-201, accuracy and measured latency (`DEVICE+DEVICE`: one objective
  each).
- `constrained:DATA:DEVICE`: the same cells of NAS-Bench-201 and objectives, but only the FEASIBLE share of cells counts that
  keeps three limits: accuracy on the other data, latency on two other devices. The same share of cells keeps each limit.
- `macro`: all 6,561 networks of NAS-Bench-Macro, accuracy and exact macs; `macro_measured`: the same with macs as measured.

- `translation`: the Transformer of experiments/translation, BLEU and latency by surrogates that are fitted to the networks
  measured there. The reference point is the worst of these.

Tables have no noise, and their reference point is the worst value of each column. Every problem has a tight reference
point as well, the 95th percentile of each objective (yardstick.py), over the whole table or over random networks of a
surrogate. Searches are told neither, but `Benchmark.told`.

NASJAX_DATA names the folder of the data sets (default: ../shared/data beside the repository), NASJAX_CACHE that of fitted
surrogates (default: experiments/tactics/.cache); fitting takes a minute or more, once.
"""

import csv
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from fnmatch import filter as matches
from functools import cache
from hashlib import sha256
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import sklearn
import surrogate
import yaml
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import Benchmark, architectures
from nasjax import supernets
from nasjax.graphs import declare
from nasjax.hardware.costs import CostTable, cost_tables
from nasjax.space import Gene, SearchSpace
from nasjax.supernets import SuperNet
from nasjax.types import Objectives, Population

HERE = Path(__file__).parent
DATA = Path(os.environ.get("NASJAX_DATA", HERE.parents[2] / "shared" / "data"))
CACHE = Path(os.environ.get("NASJAX_CACHE", HERE / ".cache"))

DEVICES = {
    "gold_6226": "server CPU (Xeon Gold 6226)",
    "1080ti_1": "GPU at batch 1 (GTX 1080 Ti; bound by launches)",
    "titan_rtx_256": "GPU at batch 256 (Titan RTX)",
    "pixel3": "mobile phone (Pixel 3)",
    "raspi4": "single-board computer (Raspberry Pi 4)",
    "fpga": "FPGA (estimated; 84 distinct values)",
    "eyeriss": "ASIC (Eyeriss, estimated; 38 distinct values)",
}
"""Seven of the 27 device settings of HELP's tables (arXiv:2106.08630), one of each kind."""

SEVERAL = ("titan_rtx_256+pixel3", "titan_rtx_256+pixel3+eyeriss")
"""Combinations of devices, for three and four objectives."""

DATASETS = {"cifar100": "CIFAR100TestAccuracy200Epochs", "imagenet16": "ImageNetTestAccuracy200Epochs"}
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("edge_1_0", "edge_2_0", "edge_2_1", "edge_3_0", "edge_3_1", "edge_3_2")
"""NAS-Bench-201's edges as node and input, in the order of its architecture strings (arXiv:2001.00326)."""


BAND = (350e6, 400e6)
"""Range of macs for the comparison with WeakNAS at one objective, placed in the space like the range in its paper."""


# -- tables ---------------------------------------------------------------------------------------------------------------


def table(name: str, space: SearchSpace, objectives: tuple[str, ...], archs: Population, values: Objectives) -> Benchmark:
    """Returns the benchmark of a complete table, whose columns (the objectives first) all count as measured."""
    weights = np.cumprod([1, *space.counts[:0:-1]])[::-1]
    lookup = np.full((int(np.prod(space.counts)), values.shape[1]), np.nan)
    lookup[archs @ weights] = values
    if np.isnan(lookup).any():
        raise ValueError(f"{name} is not complete")
    worst, columns = values[:, : len(objectives)].max(0), values.shape[1]
    told = np.where([objective.startswith("max:") for objective in objectives], 0.0, worst)
    return Benchmark(name, space, objectives, worst, told, lambda a: lookup[np.asarray(a) @ weights],
                     (0.0,) * columns, (None,) * columns, archs=archs)  # fmt: skip


@cache
def _nb201_cells() -> tuple[Population, dict[str, np.ndarray]]:
    """Returns architectures and accuracies (%) in the order of the benchmark."""
    with (DATA / "nb201-accuracy" / "nats_bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    words = [[edge.split("~")[0] for edge in row["ArchitectureString"].replace("+", "").split("|") if edge] for row in rows]
    archs = np.array([[OPERATIONS.index(word) for word in cell] for cell in words], np.int32)
    return archs, {data: np.array([float(row[column]) for row in rows]) for data, column in DATASETS.items()}


def nb201(data: str, device: str) -> Benchmark:
    """Accuracy (%) on `data` and latency (ms) on each `device` (separated by +), all measured."""
    archs, accuracies = _nb201_cells()
    with np.load(DATA / "help-latency" / "nasbench201_latency_ms.npz") as latencies:
        devices = device.split("+")
        values = np.stack([-accuracies[data], *(latencies[name] for name in devices)], 1)
    space = SearchSpace(tuple(Gene(edge, OPERATIONS) for edge in EDGES))
    objectives = ("max:accuracy_top1", *(f"min:latency_{name}" for name in devices))
    words = {"edges": "edge_TO_FROM", "zero": "none", "identity": "skip_connect"}
    return replace(table(f"nb201:{data}:{device}", space, objectives, archs, values), graph=declare(space, words))


FEASIBLE = 0.01
"""The share of the cells of a constrained problem that keep all limits."""

LIMITED = ("gold_6226", "eyeriss")
"""The devices on which the latency of a constrained problem has a limit."""


def constrained(data: str, device: str) -> Benchmark:
    """Accuracy (%) on `data` and latency (ms) on `device`; limits for the accuracy on the other data, and two latencies."""
    open_, other = nb201(data, device), next(name for name in DATASETS if name != data)
    bounded = nb201(other, "+".join(LIMITED)).true(open_.archs)
    values = np.concatenate([open_.true(open_.archs), bounded], 1)

    def kept(share: float) -> tuple[np.ndarray, np.ndarray]:
        limits = np.quantile(bounded, share, axis=0, method="lower")
        return limits, (bounded <= limits).all(1)

    limits, keep = min((kept(share) for share in np.linspace(0, 1, 1001)), key=lambda found: abs(found[1].mean() - FEASIBLE))
    whole = table(f"constrained:{data}:{device}", open_.space, open_.objectives, open_.archs, values)
    worst = values[keep, : len(open_.objectives)].max(0)
    return replace(whole, reference=worst, told=open_.told, limits=tuple(map(float, limits)), graph=open_.graph)


def macro() -> Benchmark:
    """Accuracy (%; mean of three trainings) and exact macs."""
    measured = macro_measured()
    archs, counts = measured.archs, tuple(measured.space.counts)
    macs = measured.true(archs)[:, 1]
    whole = CostTable((tuple(range(len(counts))),), (_in_place(archs, macs.astype(np.int64), counts),), (0,))
    return replace(measured, name="macro", costs=(None, whole.estimate))


def macro_measured() -> Benchmark:
    """Accuracy and macs, both as if they were measured."""
    networks = json.loads((DATA / "nas-bench-macro" / "nas-bench-macro_cifar10.json").read_text())
    archs = np.array([[int(digit) for digit in key] for key in networks], np.int32)
    values = np.array([[-network["mean_acc"], network["flops"]] for network in networks.values()], np.float64)
    space = SearchSpace(tuple(Gene(f"layer_{i}", (0, 1, 2)) for i in range(1, 9)))
    return table("macro_measured", space, ("max:accuracy_top1", "min:macs"), archs, values)


def _in_place(archs: Population, values: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Returns values as an array with one axis for each gene."""
    placed = np.zeros(counts, values.dtype)
    placed[tuple(archs.T)] = values
    return placed


# -- surrogates -----------------------------------------------------------------------------------------------------------


REFERENCES = {"": (-70.0, float("inf")), "_zero": (0.0, float("inf")), "_inner": (-74.0, 420e6)}
"""Reference points in minimised values, by suffix of the problem's name; infinity means the largest network's macs."""


KNOWN = {
    "surrogate_blend": 2900691106.0,
    "surrogate_blend_zero": 34043129986.0,
    "surrogate_blend_inner": 662683651.0,
    "surrogate_trees": 2909521444.0,
    "surrogate_trees_zero": 34051960324.0,
    "surrogate_trees_inner": 672593256.0,
    "translation": 55.39690340,
}
"""The best known hypervolumes: of everything that two runs of NSGA-II found with 76,800 noise-free values each."""

FRONTS = HERE / "results" / "known.csv"
"""The best known fronts, which known.py finds. Without one a surrogate is scored by its loose reference alone."""


def known_front(name: str, space: SearchSpace) -> Population:
    """Returns the networks of the best known front of a surrogate, none if known.py has not been run for it."""
    if not FRONTS.is_file():
        return np.zeros((0, len(space.counts)), np.int32)
    with FRONTS.open(newline="") as file:
        rows = {line["problem"]: line["rows"] for line in csv.DictReader(file)}
    return architectures(map(int, rows.get(name, "").split()), space.counts)


def surrogate_of(kind: str, variant: str) -> Benchmark:
    """Accuracy (%) by the surrogate `kind`, and exact macs."""
    space, macs, predict = _fitted(kind)

    @jax.jit
    def inputs(archs):
        return space.features(archs), macs.by_unit(archs)

    def true(archs: Population) -> Objectives:
        """Predicts from the same inputs as surrogate.features, compiled once for each power of two of architectures."""
        archs = np.asarray(archs, np.int32)
        size = max(16, 1 << (len(archs) - 1).bit_length())
        found = inputs(jnp.asarray(np.resize(archs, (size, archs.shape[1]))))
        features, units = (np.asarray(part)[: len(archs)] for part in found)
        units = units.astype(np.float64)
        read = np.concatenate([features, np.log(units.sum(1, keepdims=True)), np.log1p(units)], 1)
        return np.stack([-predict(read), macs.exact(archs).astype(np.float64)], 1)

    point = np.minimum(REFERENCES[variant], (np.inf, macs.maximum()))
    told = np.array([0.0, macs.maximum()])
    return Benchmark(f"surrogate_{kind}{variant}", space, ("max:accuracy_top1", "min:macs"), point, told, true,
                     (surrogate.NOISE, 0.0), (None, macs.estimate), macs.by_unit,
                     known=known_front(f"surrogate_{kind}", space), volume=KNOWN[f"surrogate_{kind}{variant}"])  # fmt: skip


@cache
def _fitted(kind: str) -> tuple[SearchSpace, CostTable, Callable]:
    """Returns space, exact macs and the surrogate's prediction function, which is fitted once and cached."""
    folder = DATA / "dynast-traces"
    logs = b"".join(path.read_bytes() for path in sorted(folder.glob("mbnv3w10_*.csv")))
    recipe = sha256(logs + Path(surrogate.__file__).read_bytes() + sklearn.__version__.encode()).hexdigest()[:16]
    path = CACHE / f"surrogate_{kind}_{recipe}.pickle"
    if not path.is_file():
        space, costs, archs, values = surrogate.networks(folder)
        predict = surrogate.fitted(kind, surrogate.features(space, costs, archs), values)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps((space, costs["macs"], predict)))
        part.replace(path)
    return pickle.loads(path.read_bytes())


TRANSLATION = HERE.parent / "translation"


def translation() -> Benchmark:
    """BLEU (ridge and boosted trees) and latency (ridge on its logarithm) of a Transformer super-network, without noise."""
    net = _transformer()
    costs = cost_tables(net)

    def read(archs: Population) -> Float[np.ndarray, "pop features"]:
        size = max(16, 1 << (len(archs) - 1).bit_length())  # Compiled once for each power of two.
        return surrogate.features(net.space, costs, np.resize(archs, (size, archs.shape[1])))[: len(archs)]

    def column(file: str, name: str) -> tuple[Population, np.ndarray]:
        with (TRANSLATION / "results" / file).open(newline="") as opened:
            rows = list(csv.DictReader(opened))
        archs = [net.space.encode({gene: int(row[gene]) for gene in net.space.names if row[gene]}) for row in rows]
        return np.array(archs, np.int32), np.array([float(row[name]) for row in rows])

    archs, bleu = column("networks.csv", "bleu")
    quality = surrogate.fitted("trees", read(archs), bleu)
    timed, latency = column("latency.csv", "estimate")
    time = make_pipeline(StandardScaler(), RidgeCV(10.0 ** np.arange(-4, 3))).fit(read(timed), np.log(latency))

    def true(archs: Population) -> Objectives:
        features = read(np.asarray(archs, np.int32))
        return np.stack([-quality(features), np.exp(time.predict(features))], axis=1)

    reference, told = np.array([-bleu.min(), latency.max()]), np.array([0.0, latency.max()])
    return Benchmark("translation", net.space, ("max:bleu", "min:latency"), reference, told, true,
                     parts=costs["macs"].by_unit, known=known_front("translation", net.space),
                     volume=KNOWN["translation"])  # fmt: skip


def _transformer() -> SuperNet:
    """The super-network of conf/experiment/multi30k.yaml, without weights."""
    config = yaml.safe_load((HERE.parents[1] / "conf" / "experiment" / "multi30k.yaml").read_text())
    return supernets.abstract("transformer_lt_wmt_en_de", **config["supernet"]).shapes(config["supernet"]["length"])


MAKERS: dict[str, Callable[[], Benchmark]] = {
    **{
        f"surrogate_{kind}{variant}": lambda kind=kind, variant=variant: surrogate_of(kind, variant)
        for kind in ("blend", "trees")
        for variant in REFERENCES
    },
    "translation": translation,
    "macro": macro,
    "macro_measured": macro_measured,
    **{
        f"nb201:{data}:{device}": lambda data=data, device=device: nb201(data, device)
        for data in DATASETS
        for device in (*DEVICES, *SEVERAL)
    },
    **{
        f"constrained:{data}:{device}": lambda data=data, device=device: constrained(data, device)
        for data in DATASETS
        for device in ("titan_rtx_256", "raspi4", "pixel3")
    },
}

NAMES = tuple(MAKERS)
"""Every problem by name."""


@cache
def create(name: str) -> Benchmark:
    """Returns the problem of that name. Raises ValueError for an unknown name."""
    if name not in MAKERS:
        raise ValueError(f"unknown problem {name!r}; allowed: {', '.join(NAMES)}")
    return MAKERS[name]()


def matching(pattern: str) -> list[str]:
    """Returns the names that match `pattern` (`nb201:*:raspi4`). Raises ValueError if there is none."""
    found = matches(NAMES, pattern)
    if not found:
        raise ValueError(f"no problem is named {pattern!r}; there are: {', '.join(NAMES)}")
    return found


def twins(name: str) -> list[str]:
    """Returns `name`, and for a surrogate without suffix also the problems that differ only in the reference point."""
    return list(dict.fromkeys(twin for variant in REFERENCES if (twin := name + variant) in MAKERS))


def base(name: str) -> str:
    """Returns the problem that `name` differs from only in the reference point, or `name` itself."""
    return next(other for other in NAMES if name in twins(other))
