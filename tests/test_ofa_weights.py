"""Published weights load under every name and form that they come in, and what does not fit is named."""

import json
import os
import re
import sys
from argparse import Namespace
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from torch_format import torch_bytes

from nasjax import supernets
from nasjax.cli import main
from nasjax.supernets.checkpoints import fill, read_tensors, tensors
from nasjax.supernets.ofa.weights import canonical_name, published_names

SMALL = {
    "ofa_mbv3_d234_e346_k357_w1.0": {
        "image_size": 16,
        "classes": 3,
        "widths": (16, 24),
        "strides": (1, 2),
        "depths": ((1, 2), (1, 2)),
        "activations": ("relu", "h_swish"),
        "squeeze_excite": (True, False),
        "final_expand": 32,
        "final_width": 40,
    },
    "ofa_proxyless_d234_e346_k357_w1.3": {
        "image_size": 16,
        "classes": 3,
        "widths": (16, 24),
        "strides": (1, 2),
        "depths": ((1, 2), (1,)),
        "activations": ("relu6", "relu6"),
        "squeeze_excite": (False, False),
        "final_expand": 32,
    },
    "ofa_resnet50": {
        "image_size": 16,
        "classes": 3,
        "widths": (32, 48),
        "strides": (1, 2),
        "least_depths": (1, 1),
        "depths": (0, 1),
    },
}
"""The same families, small."""


def in_full(name):
    """The names that stand in a file: the original has wrappers around its elastic layers."""
    if name.startswith(("blocks.0.conv.", "first_conv.", "final_expand", "feature_mix")):
        return name
    return name.replace(".bn.", ".bn.bn.").replace("conv.weight", "conv.conv.weight")


def published(net, rename=in_full):
    """The network's weights as PyTorch's state dict would hold them."""
    ours = tensors(net)
    found = {}
    for name, there in published_names(net).items():
        tensor = ours[name] if there.axes is None else ours[name].transpose(np.argsort(there.axes))
        found[rename(there.name)] = np.ascontiguousarray(tensor)
        if there.name.endswith("running_var"):
            found[rename(there.name.replace("running_var", "num_batches_tracked"))] = np.zeros((), np.int64)
    return found


def drawn(name):
    """A small network whose weights all differ, statistics included."""
    make = replace(supernets.SUPERNETS[name], **SMALL[name]).create
    rng = np.random.default_rng(0)
    leaves = nnx.to_flat_state(nnx.state(nnx.eval_shape(make)))
    found = {".".join(map(str, path)): rng.random(leaf.shape, np.float32) for path, leaf in leaves}
    return fill(make, found, "drawn")


def same(one, other):
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def in_old(name):
    """The names in the files that were published first."""
    return re.sub(r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", in_full(name))


@pytest.mark.parametrize("rename", [in_full, in_old, canonical_name])
@pytest.mark.parametrize("name", SMALL)
def test_published_names_of_every_age_load(tmp_path, name, rename):
    net = drawn(name)
    save_file(published(net, rename), tmp_path / "weights.safetensors")
    same(net, supernets.create(name, checkpoint=str(tmp_path / "weights.safetensors"), **SMALL[name]))


def test_layouts_are_those_of_pytorch():
    net = drawn("ofa_mbv3_d234_e346_k357_w1.0")
    found, ours = published(net, canonical_name), tensors(net)
    weight = found["blocks.1.conv.inverted_bottleneck.conv.weight"]
    assert weight.shape == (96, 16, 1, 1)
    assert weight[5, 3, 0, 0] == ours["stages.2.expand.conv.kernel"][0, 0, 3, 5]
    assert found["blocks.1.conv.depth_conv.conv.weight"].shape == (96, 1, 7, 7)
    assert found["blocks.1.conv.depth_conv.conv.7to5_matrix"].shape == (25, 25)
    assert found["classifier.linear.weight"].shape == (3, 40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda found: found.pop("blocks.2.conv.depth_conv.bn.bn.weight"),
            "has no tensor 'blocks.2.conv.depth_conv.bn.bn.weight'",
        ),
        (
            lambda found: found.update({"blocks.1.conv.depth_conv.bn.weight": np.zeros(96, np.float32)}),
            "two names, 'blocks.1.conv.depth_conv.bn.bn.weight' and 'blocks.1.conv.depth_conv.bn.weight': remove one",
        ),
        (lambda found: found.pop("classifier.linear.bias"), "has no tensor 'classifier.linear.bias'"),
        (lambda found: found.update(extra=np.zeros(2)), "tensor 'extra' is unexpected"),
        (
            lambda found: found.update({"first_conv.conv.weight": np.zeros((8, 3, 3, 3), np.float32)}),
            r"tensor 'first_conv.conv.weight' has shape \(8, 3, 3, 3\), \(16, 3, 3, 3\) is expected",
        ),
        (lambda found: found.clear(), "has no tensor 'first_conv.conv.weight'"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(tmp_path, change, words):
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    found = published(drawn(name))
    change(found)
    save_file(found, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=words):
        supernets.create(name, checkpoint=str(tmp_path / "weights.safetensors"), **SMALL[name])


@pytest.mark.parametrize("own", [False, True])
def test_a_new_classifier_for_other_classes(tmp_path, own):
    """Drawn from the seed, all else the checkpoint's; only on demand, and only where the classes differ."""
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    net = drawn(name)
    path = tmp_path / "weights.safetensors"
    save_file(tensors(net) if own else published(net), path)

    def create(seed=0, **changes):
        return supernets.create(name, seed=seed, checkpoint=str(path), **SMALL[name] | changes)

    with pytest.raises(ValueError, match=r"train a classifier: supernet\.new_classifier=true initialises one"):
        create(classes=7)
    with pytest.raises(ValueError, match=r"has a classifier of 3 classes: leave supernet\.new_classifier out"):
        create(new_classifier=True)
    with pytest.raises(ValueError, match=r"is expected$"):
        create(classes=7, new_classifier=True, final_width=48)
    old, new, again, other = tensors(net), *(tensors(create(seed, classes=7, new_classifier=True)) for seed in (0, 0, 1))
    differ = {key for key in old if not np.array_equal(old[key], new[key])}
    assert differ == {key for key in old if ".classify." in key} and len(differ) == 2
    kernel = next(key for key in differ if key.endswith("kernel"))
    assert new[kernel].shape == (40, 7) and new[kernel].std() > 0.01
    np.testing.assert_array_equal(new[kernel], again[kernel])
    assert not np.array_equal(new[kernel], other[kernel])


@pytest.mark.parametrize("name", SMALL)
def test_class_counts_channels_and_input_sizes_are_free(name):
    net = nnx.eval_shape(replace(supernets.SUPERNETS[name], classes=7, image_size=45, channels=1).create)
    graph, weights = nnx.split(net)
    largest = tuple(map(int, net.space.largest()))
    images = net.inputs(2)
    assert images.shape == (2, 45, 45, 1)
    logits = jax.eval_shape(lambda weights, images: nnx.merge(graph, weights)(images, largest), weights, images)
    assert logits.shape == (2, 7)
    assert net.space.size == nnx.eval_shape(supernets.SUPERNETS[name].create).space.size


def overrides(name):
    def word(value):
        return str(value).lower().replace("(", "[").replace(",)", "]").replace(")", "]").replace("'", "").replace(" ", "")

    return [f"supernet={name}", *(f"supernet.{key}={word(value)}" for key, value in SMALL[name].items())]


def test_import_converts_a_checkpoint_once(tmp_path, capsys):
    name = "ofa_resnet50"
    net = drawn(name)
    save_file(published(net), tmp_path / "published.safetensors")
    command = ["import", str(tmp_path / "published.safetensors"), *overrides(name), f"out={tmp_path / 'ours.safetensors'}"]
    assert main(command) == 0
    assert "ours.safetensors" in capsys.readouterr().out
    same(net, supernets.create(name, checkpoint=str(tmp_path / "ours.safetensors"), **SMALL[name]))
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "supernet=NAME is missing"),
        (["out=x.safetensors"], "supernet=NAME is missing"),
        (["supernet=tabular"], "supernet=tabular has no weights to import"),
        (["supernet=external"], "supernet=external has no weights to import"),
        (["supernet=ofa_resnet50", "supernet.checkpoint=other.pth"], "leave supernet.checkpoint out"),
    ],
)
def test_import_says_what_is_missing_or_too_much(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    save_file(published(drawn("ofa_resnet50")), "published.safetensors")
    assert main(["import", "published.safetensors", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["published.safetensors"]


def test_import_names_a_wrong_tensor_in_one_line(tmp_path, capsys):
    name = "ofa_resnet50"
    save_file(published(drawn(name)), tmp_path / "published.safetensors")
    words = [*overrides(name), "supernet.classes=4", f"out={tmp_path / 'ours.safetensors'}"]
    assert main(["import", str(tmp_path / "published.safetensors"), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'classifier.linear.bias' has shape (3,), (4,) is expected" in error
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.fixture
def resnet():
    """A small network with its published state dict, and whether a file of any content gives this network."""
    net = drawn("ofa_resnet50")

    def reads(path, content=None, **how):
        if content is not None:
            path.write_bytes(torch_bytes(content, **how))
        same(net, supernets.create("ofa_resnet50", checkpoint=str(path), **SMALL["ofa_resnet50"]))

    return published(net), reads


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", ["", "state_dict", "model", "net", "model_state_dict", "state_dict_ema", "generator"])
def test_pytorch_files_are_read_without_pytorch(tmp_path, monkeypatch, resnet, legacy, wrapped):
    monkeypatch.setitem(sys.modules, "torch", None)
    state, reads = resnet
    optimiser = {"state": {0: {"step": np.zeros(1), "exp_avg": np.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    reads(tmp_path / "a", {wrapped: state, "epoch": 3, "optimizer": optimiser} if wrapped else state, legacy=legacy)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "_orig_mod.", "model._orig_mod.", "module.model.net.", "_orig_mod.module.",
               "backbone.", "ema_model.module.", "lit.student_1.encoder."]
)  # fmt: skip
def test_names_of_wrapping_modules_are_taken_off(tmp_path, resnet, prefix):
    state, reads = resnet
    reads(tmp_path / "a", {f"{prefix}{name}": tensor for name, tensor in state.items()})
    save_file({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "b")
    reads(tmp_path / "b")


@pytest.mark.parametrize("own", [False, True])
def test_tensors_beside_the_wrapped_network_are_said_to_be_left(tmp_path, capsys, own):
    net = drawn("ofa_resnet50")
    state = {f"model.{name}": tensor for name, tensor in (tensors(net) if own else published(net)).items()}
    save_file({**state, "criterion.weight": np.ones(3, np.float32)}, tmp_path / "a")
    same(net, supernets.create("ofa_resnet50", checkpoint=str(tmp_path / "a"), **SMALL["ofa_resnet50"]))
    assert capsys.readouterr().err == f"nasjax: {tmp_path / 'a'}: takes the weights of model.*, not criterion.weight\n"


def test_weights_under_two_names_of_wrapping_modules_are_not_chosen_from(tmp_path):
    state = published(drawn("ofa_resnet50"))
    save_file({f"{prefix}{name}": state[name] for prefix in ("model.", "ema_model.") for name in state}, tmp_path / "a")
    refused(tmp_path / "a", r"holds the network's weights several times, as .*ema_model\.\*.*: save one alone")


def test_a_tensor_missing_in_a_file_of_ours_has_our_name(tmp_path):
    save_file({"stages.0.other.kernel": np.zeros(3, np.float32)}, tmp_path / "a")
    refused(tmp_path / "a", r"has no tensor 'stages\.0\.")


def test_parts_compiled_by_pytorch_have_their_own_names(tmp_path, resnet):
    state, reads = resnet
    reads(tmp_path / "a", {name.replace("blocks.0.", "blocks.0._orig_mod."): tensor for name, tensor in state.items()})


@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod."])
def test_the_counter_of_an_averaged_model_is_no_weight(tmp_path, resnet, outer):
    state, reads = resnet
    averaged = {f"{outer}module.{name}": tensor for name, tensor in state.items()}
    reads(tmp_path / "a", {f"{outer}n_averaged": np.zeros((), np.int64), **averaged})


@pytest.mark.parametrize(
    ("averaged", "said"),
    [
        (lambda state: {"swa": state}, "'swa'"),
        (lambda state: {"state_dict_ema": state}, "'state_dict_ema'"),
        (lambda state: {"ema": {"decay": 0.999, "module": state}}, "'ema.module'"),
        (lambda state: {"ema_model": state}, "'ema_model'"),
    ],
)
def test_averaged_weights_come_first_and_a_line_says_so(tmp_path, capsys, resnet, averaged, said):
    state, reads = resnet
    raw = {name: tensor + 1 for name, tensor in state.items()}
    reads(tmp_path / "a", {"state_dict": raw, **averaged(state), "epoch": 3})
    assert f"takes the weights of {said}, not of state_dict\n" in capsys.readouterr().err
    reads(tmp_path / "a", averaged(state))
    assert capsys.readouterr().err == ""


def test_weights_under_an_unknown_key_are_said_to_be_left(tmp_path, capsys, resnet):
    state, reads = resnet
    other = {name: np.asarray(tensor + 1) for name, tensor in state.items()}
    few = dict(list(other.items())[:2])
    reads(tmp_path / "a", {"state_dict": state, "best_ever": other, "criterion": few})
    assert "takes the weights of 'state_dict', not of best_ever\n" in capsys.readouterr().err


class Trap:
    """What pickle would call where a file is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_beside_the_weights_are_passed_over_and_nothing_is_executed(tmp_path, resnet, legacy):
    state, reads = resnet
    beside = {"args": Namespace(lr=0.1), "best": np.float64(71.3), "trap": Trap(tmp_path / "trap"), "seen": {1, 2},
              "curve": np.arange(3, dtype=np.int8), "log": defaultdict(list, {"loss": [Namespace(a=1)]})}  # fmt: skip
    reads(tmp_path / "a", {"state_dict": state, **beside}, legacy=legacy)
    reads(tmp_path / "a", {**state, **beside}, legacy=legacy)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Namespace(model=1), r"holds no state dict, but an object of argparse\.Namespace: .*torch\.save\(model\.state_dict"),
        ({"model": Namespace(), "epoch": 3}, r"but the keys 'model' \(argparse\.Namespace\), 'epoch': save one alone"),
        ({"a.b": np.zeros(3, np.int8)}, r"but the keys 'a\.b' \(numpy\..*_reconstruct\)"),
        ([1, 2], "but a list"),
        ({}, "but the keys none"),
        ({0: np.zeros(3)}, "holds no state dict, but the keys 0"),
        ({"one": {"a.b": np.zeros(3)}, "two": {"a.b": np.zeros(3)}}, "several state dicts, one, two: save one alone"),
        ({"stem.weight": np.broadcast_to(np.float32(0), (10**12,))}, "it has no tensor 'input_stem.0.conv.weight'"),
        (
            {"input_stem.0.conv.weight": np.broadcast_to(np.float32(0), (10**6, 10**6))},
            r"has shape \(1000000, 1000000\), .* is expected",
        ),
    ],
)
def test_what_holds_no_weights_says_what_it_holds(tmp_path, content, words):
    (tmp_path / "weights.pth").write_bytes(torch_bytes(content))
    refused(tmp_path / "weights.pth", words)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_pytorch_file_is_named_wherever_it_is_damaged(tmp_path, resnet, legacy):
    state, _ = resnet
    whole = torch_bytes(state, legacy=legacy)
    rng = np.random.default_rng(0)
    for end in rng.integers(4, len(whole) - 1, 20):
        (tmp_path / "weights.pth").write_bytes(whole[:end])
        refused(tmp_path / "weights.pth", "cannot be read")


def sparse(path, start, size=20 * 10**9):
    """A file of 20 GB of which the disk has the start only."""
    path.write_bytes(start)
    os.truncate(path, size)


def test_files_of_20_gb_of_nothing_are_refused_at_once(tmp_path):
    header = json.dumps({"first": {"dtype": "U8", "shape": [2 * 10**10], "data_offsets": [0, 2 * 10**10]}}).encode()
    begin = len(header).to_bytes(8, "little") + header
    for start, size, words in (
        (b"", 20 * 10**9, "cannot be read as safetensors"),
        (b"PK\x03\x04", 20 * 10**9, "cannot be read as a PyTorch state dict"),
        (b"\x80\x02", 20 * 10**9, "cannot be read as a PyTorch state dict"),
        (b"\x80\x02Nr\xff\xff\xff\xff.", 20 * 10**9, "it is another pickle"),  # Entry 2**32 of the list of objects.
        (b"\x80\x04\x8e" + (10**10).to_bytes(8, "little"), 20 * 10**9, "one of its objects is too long"),
        (begin, 2 * 10**10 + len(begin), "it has no tensor"),
    ):
        sparse(tmp_path / "weights.pth", start, size)
        refused(tmp_path / "weights.pth", words)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [None, "state_dict", "model", "net"])
def test_pytorch_state_dicts_load(tmp_path, legacy, wrapped):
    torch = pytest.importorskip("torch")
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    net = drawn(name)
    state = {key: torch.from_numpy(value.copy()) for key, value in published(net).items()}
    path = tmp_path / "ofa_mbv3_d234_e346_k357_w1.0"
    torch.save({wrapped: state, "epoch": 3} if wrapped else state, path, _use_new_zipfile_serialization=not legacy)
    same(net, supernets.create(name, checkpoint=str(path), **SMALL[name]))


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_those_that_pytorch_saved(tmp_path, legacy):
    """Every type, transposed, sliced, shared, expanded, empty and scalar ones."""
    torch = pytest.importorskip("torch")
    base = torch.arange(-6, 18).reshape(2, 3, 4)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool)  # fmt: skip
    state = {f"of.{kind}": base.to(kind) for kind in kinds}
    state |= {"a.transposed": base.permute(2, 0, 1), "a.slice": base[1:, ::2, 1], "a.whole": base,
              "a.one": torch.tensor(3.5), "a.expanded": torch.ones(1).expand(5, 4), "a.empty": torch.zeros(0, 3),
              "a.parameter": torch.nn.Parameter(torch.ones(2))}  # fmt: skip
    torch.save(state, tmp_path / "a", _use_new_zipfile_serialization=not legacy)
    read = read_tensors(tmp_path / "a")
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(read[name].astype(np.float64), tensor.detach().double().numpy(), err_msg=name)


def test_averaged_and_compiled_modules_of_pytorch_load(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(3, 1)))
    averaged = torch.optim.swa_utils.AveragedModel(module)
    for wrapper in (averaged, torch.nn.DataParallel(averaged), torch.compile(averaged)):
        torch.save({"epoch": 3, "swa": wrapper.state_dict(), "args": Namespace(lr=1)}, tmp_path / "a")
        read = read_tensors(tmp_path / "a")
        prefix = next(iter(read)).removesuffix("n_averaged") + "module."
        assert {name.removeprefix(prefix) for name in read if name.startswith(prefix)} == set(module.state_dict())
        np.testing.assert_array_equal(read[f"{prefix}1.0.weight"], module[1][0].weight.detach().numpy())
    torch.save(module, tmp_path / "a")
    with pytest.raises(ValueError, match=r"an object of torch\.nn\.modules\.container\.Sequential: save one alone"):
        read_tensors(tmp_path / "a")
    torch.jit.script(module).save(tmp_path / "a")
    with pytest.raises(ValueError, match="it is a TorchScript program"):
        read_tensors(tmp_path / "a")


def refused(path, words):
    """One line, with those words; nothing of the network is made."""
    with pytest.raises(ValueError, match=words) as found:
        supernets.create("ofa_resnet50", checkpoint=str(path), **SMALL["ofa_resnet50"])
    assert "\n" not in str(found.value) and path.name in str(found.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "is a pointer of Git LFS.*`git lfs pull`"),
        (b"<html>404</html>", "cannot be read as safetensors .*, and is not a PyTorch state dict"),
    ],
)
def test_what_is_no_checkpoint_says_what_it_is(tmp_path, content, words):
    (tmp_path / "weights.pth").write_bytes(content)
    refused(tmp_path / "weights.pth", words)


def one_tensor(kind, number):
    """A safetensors file of two zeros of that type, `number` bytes in all."""
    header = json.dumps({"first": {"dtype": kind, "shape": [2], "data_offsets": [0, number]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(number)


@pytest.mark.parametrize(("kind", "number"), [("F8_E4M3", 2), ("C64", 16)])
def test_tensors_of_other_types_are_named(tmp_path, kind, number):
    (tmp_path / "weights.safetensors").write_bytes(one_tensor(kind, number))
    refused(tmp_path / "weights.safetensors", f"tensor 'first' has type {kind}; allowed: F64, F32, F16, BF16")


@pytest.mark.parametrize(("kind", "number"), [("F64", 16), ("BF16", 4), ("I64", 16), ("BOOL", 2)])
def test_tensors_of_other_real_types_are_read(tmp_path, kind, number):
    (tmp_path / "weights.safetensors").write_bytes(one_tensor(kind, number))
    assert read_tensors(tmp_path / "weights.safetensors")["first"].astype(np.float32).tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, value):
    found = published(drawn("ofa_resnet50"))
    found["classifier.linear.bias"] = np.array([0, value, 0])
    save_file(found, tmp_path / "weights.safetensors")
    refused(tmp_path / "weights.safetensors", "tensor 'classifier.linear.bias' holds values that are not finite")


def test_what_pytorch_keeps_beside_plain_tensors_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    zeros = torch.zeros(3)
    for key, value, words in (
        ("bias", zeros.to_sparse(), "tensor 'bias' is sparse"),
        ("bias", zeros.to(torch.complex64), "tensor 'bias' is complex"),
        ("bias", zeros.to("meta"), r"tensor 'bias' is without values \(device meta\)"),
        ("bias", torch.quantize_per_tensor(zeros, 1, 0, torch.qint8), "tensor 'bias' is quantized"),
        ("bias", zeros.to(torch.float8_e5m2), "tensor 'bias' is of a type that NumPy does not have"),
    ):
        torch.save({key: value}, tmp_path / "weights.pth")
        refused(tmp_path / "weights.pth", words)


@pytest.mark.parametrize(("make", "words"), [(os.mkfifo, "it is a pipe"), (os.mkdir, "it is a folder"), (str, "not exist")])
def test_only_regular_files_are_checkpoints(tmp_path, make, words):
    make(tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", rf"supernet\.checkpoint=.* is not a file: .*{words}")
