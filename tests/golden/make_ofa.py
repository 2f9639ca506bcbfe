"""Golden values of the original Once-for-All (PyPI: ofa) in PyTorch: logits, multiply-accumulates and parameters.

In an environment of its own, from the repository's root (nine minutes on two busy cores):

    python -m venv ofa-original && . ofa-original/bin/activate
    pip install torch==2.13.0 numpy pillow tqdm pyyaml && pip install --no-deps ofa==0.1.0.post202307202001
    python tests/golden/make_ofa.py

writes tests/golden/NAME.npz for the four super-networks. Weights and images come from seeded.py; the gain keeps what tells
images apart alive through twenty blocks, and the damped last batch norm of identity branches keeps their sum from growing.
Each file holds, for largest, smallest and twelve random architectures: OFA's lists (`ks` and `e`, or `e` and `w`; `d`), and
for each of two resolutions logits with the stored running statistics and after `set_running_statistics` on the same images
(two batches; every eighth class only, of three images), and integer counts on the extracted sub-network. All classes of
all images would be 16 times as large (over 1 MB a network) and see no more: the classifier is one matrix product, of which
125 rows at an even distance show any mistake in layout or order, and every image goes through every layer.
"""

import copy
import sys
import types
from pathlib import Path

import numpy as np
import torch

# The original's data pipeline needs torchvision, which nothing here uses.
sys.modules["ofa.utils.my_dataloader"] = types.ModuleType("ofa.utils.my_dataloader")
sys.path.insert(0, str(Path(__file__).parent))

import seeded  # noqa: E402
from ofa.imagenet_classification.elastic_nn.networks import (  # noqa: E402
    OFAMobileNetV3,
    OFAProxylessNASNets,
    OFAResNets,
)
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics  # noqa: E402

MOBILE = {"dropout_rate": 0, "ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
RESNET = {
    "dropout_rate": 0,
    "depth_list": [0, 1, 2],
    "expand_ratio_list": [0.2, 0.25, 0.35],
    "width_mult_list": [0.65, 0.8, 1.0],
}
NETS = {
    "ofa_mbv3_d234_e346_k357_w1.0": lambda: OFAMobileNetV3(width_mult=1.0, **copy.deepcopy(MOBILE)),
    "ofa_mbv3_d234_e346_k357_w1.2": lambda: OFAMobileNetV3(width_mult=1.2, **copy.deepcopy(MOBILE)),
    "ofa_proxyless_d234_e346_k357_w1.3": lambda: OFAProxylessNASNets(width_mult=1.3, **copy.deepcopy(MOBILE)),
    "ofa_resnet50": lambda: OFAResNets(**copy.deepcopy(RESNET)),
}
MOBILE_LISTS = {"ks": ([3, 5, 7], 20), "e": ([3, 4, 6], 20), "d": ([2, 3, 4], 5)}
LISTS = {
    "ofa_mbv3_d234_e346_k357_w1.0": MOBILE_LISTS,
    "ofa_mbv3_d234_e346_k357_w1.2": MOBILE_LISTS,
    "ofa_proxyless_d234_e346_k357_w1.3": {"ks": ([3, 5, 7], 21), "e": ([3, 4, 6], 21), "d": ([2, 3, 4], 6)},
    "ofa_resnet50": {"d": ([0, 1, 2], 5), "e": ([0.2, 0.25, 0.35], 18), "w": ([0, 1, 2], 6)},
}
RESOLUTIONS = (80, 96)
RANDOM = 12
IMAGES, BATCHES = 6, 2
KEPT_IMAGES, CLASS_STEP = 3, 8


def architectures(name: str) -> dict[str, np.ndarray]:
    """OFA's lists, one row an architecture: largest, smallest, random ones."""
    rng = np.random.default_rng([seeded.SEED, len(name)])
    rows = {}
    for key, (options, length) in LISTS[name].items():
        random = rng.choice(options, (RANDOM, length))
        rows[key] = np.concatenate([np.full((1, length), options[-1]), np.full((1, length), options[0]), random])
    if name.startswith("ofa_proxyless"):
        rows["d"][:, -1] = 1
    return rows


def fill(net: torch.nn.Module, name: str) -> None:
    """Seeded weights for every tensor of the state dict; in place."""
    state = net.state_dict()
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):
            state[key] = torch.from_numpy(seeded.tensor(name, seeded.short(key), tuple(value.shape)))
    torch.nn.Module.load_state_dict(net, state)


def counts(net: torch.nn.Module, size: int) -> tuple[int, int]:
    """Multiply-accumulates of convolutions and matrix products (Python ints), and parameters."""
    total = 0

    def hook(module, inputs, output):
        nonlocal total
        inner = module.weight.shape[1:].numel()
        total += output[0].numel() * inner

    handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return total, sum(p.numel() for p in net.parameters())


def golden(name: str) -> dict[str, np.ndarray]:
    rows = architectures(name)
    stored = NETS[name]().eval()
    fill(stored, name)
    found: dict[str, list] = {"params": []}
    for i in range(len(rows["d"])):
        lists = {key: values[i].tolist() for key, values in rows.items()}
        net = copy.deepcopy(stored)
        net.set_active_subnet(**lists)
        subnet = net.get_active_subnet().eval()
        for size in RESOLUTIONS:
            images = torch.from_numpy(seeded.images(IMAGES, size).transpose(0, 3, 1, 2).copy())
            calibrated = copy.deepcopy(net)
            set_running_statistics(calibrated, [(batch, None) for batch in images.chunk(BATCHES)])
            with torch.no_grad():
                for kind, model in (("stored", net), ("calibrated", calibrated)):
                    found.setdefault(f"{kind}_{size}", []).append(model.eval()(images)[:KEPT_IMAGES].numpy())
            macs, params = counts(subnet, size)
            found.setdefault(f"macs_{size}", []).append(macs)
        found["params"].append(params)
    arrays = {key: np.array(values) for key, values in found.items()}
    for key in list(arrays):
        if arrays[key].ndim == 3:
            logits = arrays[key]
            apart = (logits - logits.mean(1, keepdims=True)).std() / logits.std()
            print(f"  {key}: scale {np.abs(logits).max():.3g}, share of images in the deviation {apart:.3f}")
            arrays[key] = logits[..., ::CLASS_STEP]
    return rows | arrays | {"images": IMAGES, "batches": BATCHES, "class_step": CLASS_STEP, "resolutions": RESOLUTIONS}


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"torch {torch.__version__}, numpy {np.__version__}, ofa 0.1.0.post202307202001")
    for name in sys.argv[1:] or NETS:
        print(name)
        arrays = golden(name)
        np.savez_compressed(Path(__file__).parent / f"{name}.npz", **arrays)
