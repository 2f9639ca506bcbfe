"""Published weights load under every name and form that they come in, and what does not fit is named."""

import json
import re
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

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


def test_the_prefix_of_parallel_training_is_taken_off(tmp_path):
    name = "ofa_resnet50"
    net = drawn(name)
    save_file({f"module.{key}": value for key, value in published(net).items()}, tmp_path / "weights.safetensors")
    same(net, supernets.create(name, checkpoint=str(tmp_path / "weights.safetensors"), **SMALL[name]))


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


def test_a_pytorch_file_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ValueError, match=r"needs torch \(pip install torch\)$"):
        supernets.create("ofa_resnet50", checkpoint=str(tmp_path / "weights.pth"))


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


def test_a_pickle_with_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")

    torch.save({"state_dict": {"weight": pytest.approx}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch state dict"):
        supernets.create("ofa_resnet50", checkpoint=str(tmp_path / "weights.pth"))


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
        (b"<html>404</html>", "cannot be read as safetensors .*, and is no PyTorch state dict"),
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
        ("bias", zeros / 0, "tensor 'bias' holds values that are not finite"),
        (0, zeros, "holds no state dict: the key 0 of a tensor is not a string"),
    ):
        torch.save({key: value}, tmp_path / "weights.pth")
        refused(tmp_path / "weights.pth", words)


def test_parameters_load_as_tensors_do(tmp_path):
    torch = pytest.importorskip("torch")
    name = "ofa_resnet50"
    net = drawn(name)
    state = {key: torch.from_numpy(value.copy()) for key, value in published(net).items()}
    state = {key: torch.nn.Parameter(value) if value.is_floating_point() else value for key, value in state.items()}
    torch.save(state, tmp_path / "weights.pth")
    same(net, supernets.create(name, checkpoint=str(tmp_path / "weights.pth"), **SMALL[name]))
