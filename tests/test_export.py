"""Exported files of every format predict what the network predicts; a file that does not is removed."""

import copy
import json
import re
import subprocess
import sys
import types
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_ofa_weights import SMALL
from tiny import architectures, scrambled

from nasjax import supernets, tasks
from nasjax.cli import main
from nasjax.deploy.subnet import extract_subnet
from nasjax.evaluation import MaskedConfig
from nasjax.export import KINDS, kind, run_onnx, run_published, run_stablehlo, to_onnx
from nasjax.export.published import net_config, state_dict
from nasjax.supernets.extract import extract
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet

FORMATS = (".stablehlo", ".onnx", ".safetensors")


def logits(net, images):
    graph, weights = nnx.split(net)
    return np.asarray(jax.jit(lambda weights, images: nnx.merge(graph, weights)(images))(weights, images))


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def digits():
    """An extracted sub-network of the shipped super-network, and test images."""
    net, task = supernets.create("digits"), tasks.create("digits")
    evaluator = MaskedConfig(chunk=1).bind(net, task)
    arch = architectures(net.space, 1)[2]
    return extract_subnet(net, evaluator, arch, task.validation.inputs[:20]), task.test.inputs


@pytest.fixture(scope="module")
def written(digits, tmp_path_factory):
    """Its folder with every format that needs no PyTorch."""
    return digits[0].save(tmp_path_factory.mktemp("export") / "net", FORMATS)


def test_every_format_predicts_as_the_network_for_any_batch_size(digits, written):
    extracted, images = digits
    names = ["config.json", "network.onnx", "network.safetensors", "network.stablehlo", "ofa.safetensors"]
    assert sorted(file.name for file in written.iterdir()) == names
    for number in (1, 7):
        wanted = logits(extracted.network, images[:number])
        for run, name in (
            (run_stablehlo, "network.stablehlo"),
            (run_onnx, "network.onnx"),
            (run_published, "ofa.safetensors"),
        ):
            np.testing.assert_allclose(run(written / name, images[:number]), wanted, rtol=0, atol=2e-5, err_msg=name)
    assert [file.name for file in written.parent.iterdir()] == ["net"]


@pytest.mark.slow
def test_a_file_with_a_fixed_batch_size_refuses_others(digits, tmp_path):
    extracted, images = digits
    folder = extracted.save(tmp_path / "four", [".stablehlo", ".onnx"], batch=4)
    for run, name in ((run_stablehlo, "network.stablehlo"), (run_onnx, "network.onnx")):
        wanted = logits(extracted.network, images[:4])
        np.testing.assert_allclose(run(folder / name, images[:4]), wanted, rtol=0, atol=2e-5)
        with pytest.raises(Exception, match=r"batch|dimension|shape"):
            run(folder / name, images[:3])


def test_a_file_that_predicts_otherwise_is_removed(digits, tmp_path, monkeypatch):
    """The last bias of the written network is off by a thousandth."""
    extracted, _ = digits

    broken = replace(kind(".onnx"), make=lambda *_: {"network.onnx": b"not an ONNX model"})
    monkeypatch.setitem(KINDS, ".onnx", broken)
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        extracted.export(tmp_path / "net.onnx")
    monkeypatch.undo()
    make = KINDS[".safetensors"].make

    def shifted(net, facts, batch):
        net = nnx.clone(net)
        net.stages[-1].classify.bias[...] += 1e-3
        return make(net, facts, batch)

    monkeypatch.setitem(KINDS, ".safetensors", replace(KINDS[".safetensors"], make=shifted))
    with pytest.raises(RuntimeError, match=r"differ by 1\.0e-03 once extracted"):
        extracted.save(tmp_path / "net", [".safetensors"])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused_in_one_line_and_leaves_no_files(digits, tmp_path, monkeypatch):
    extracted, _ = digits
    with pytest.raises(
        ValueError, match=r"\.tflite is not a known export format; allowed: \.stablehlo, \.onnx, \.pth, \.safetensors"
    ):
        extracted.export(tmp_path / "net.tflite")
    for package, suffix, words in (
        ("torch", ".pth", r"\.pth needs the package torch: pip install torch; \.safetensors does without"),
        ("onnxruntime", ".onnx", r"needs the package onnxruntime: pip install nasjax\[onnx\]"),
        ("flatbuffers", ".stablehlo", r"needs the package flatbuffers: pip install nasjax\[export\]"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=words):
            extracted.save(tmp_path / "net", [".safetensors", suffix])
    with pytest.raises(ValueError, match="was made in memory"):
        replace(extracted, origin={"name": "in memory"}).save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["OSError('libtorch.so: cannot open')", "ImportError('libtorch.so: cannot open')"])
def test_a_package_that_is_installed_but_cannot_be_loaded_is_told_as_such(tmp_path, monkeypatch, failure):
    (tmp_path / "torch.py").write_text(f"raise {failure}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ValueError, match=r"installed but cannot be loaded \(.*Error: libtorch\.so: cannot open"):
        kind(".pth")


# -- ONNX -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_onnx_runtime_predicts_as_the_network_for_each_family(name, tmp_path):
    """At 36 pixels, where ResNet's average pooling has an odd size."""
    net = scrambled(nnx.eval_shape(replace(supernets.SUPERNETS[name], **(SMALL[name] | {"image_size": 36})).create), 3)
    images = noise(3, 36, 36, 3)
    small = extract(net, architectures(net.space, 1)[2])
    (tmp_path / "net.onnx").write_bytes(to_onnx(small))
    wanted = logits(small, images)
    found = run_onnx(tmp_path / "net.onnx", images)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert np.ptp(wanted, axis=0).max() > 0.01 * np.abs(wanted).max()


def test_an_onnx_graph_has_no_superfluous_nodes(written):
    """One convolution a layer, nothing of the CPU's special convolutions, and few transpositions."""
    import onnx

    kinds = [node.op_type for node in onnx.load(written / "network.onnx").graph.node]
    with safe_open(written / "network.safetensors", framework="numpy") as weights:
        convolutions = sum(name.endswith("kernel") for name in weights.keys()) - 1  # noqa: SIM118  # the classifier
    assert kinds.count("Conv") == convolutions
    assert kinds.count("Transpose") <= 4 and kinds.count("MatMul") == 1


class Attend(Stage):
    """Operations that no network here has: attention, a class token, softmax, concatenation, powers, selection."""

    def __init__(self, rngs):
        self.token = nnx.Param(jax.random.normal(rngs.params(), (1, 1, 6)))
        self.mix = nnx.Param(jax.random.normal(rngs.params(), (6, 3, 2, 4)))

    def forward(self, carry, choice, statistics):
        x = carry.reshape(carry.shape[0], -1, carry.shape[-1])
        x = jnp.concatenate([x, jnp.tanh(x[:, -1:]) ** 3 + self.token[...]], axis=1)
        q, k, v = jnp.moveaxis(jnp.einsum("btc,cnhd->btnhd", x, self.mix[...]), 2, 0)
        weight = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / 2, axis=-1)
        x = jnp.einsum("bhts,bshd->bthd", weight, v).reshape(x.shape[0], x.shape[1], -1)
        x = jnp.where(x > 0, x, 0.1 * x) + jax.nn.gelu(x) + jax.nn.sigmoid(x)
        scale, shift = self.token[0, 0, :2]
        x = scale * x + shift * jnp.log2(1 + jnp.square(x))
        return x[:, 0] - x.max(1) * jnp.exp(-jnp.square(x).mean(1)), {}


class Sort(Attend):
    """Sorts, which ONNX export does not support."""

    def forward(self, carry, choice, statistics):
        return jnp.sort(carry.reshape(carry.shape[0], -1)), {}


def test_stages_of_a_user_are_exported_to_onnx(tmp_path, monkeypatch):
    images = noise(2, 2, 3, 6)
    for batch in (2, None):
        net = SuperNet([Attend(nnx.Rngs(0))], (2, 3, 6))
        (tmp_path / "net.onnx").write_bytes(to_onnx(net, batch=batch))
        np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", images), logits(net, images), rtol=0, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"ONNX export does not support the operation 'sort'; \.stablehlo supports every network"
    ):
        to_onnx(SuperNet([Sort(nnx.Rngs(0))], (2, 3, 6)))


# -- Once-for-All's format --------------------------------------------------------------------------------------------------


def small_network(name):
    changes = SMALL.get(name, {}) | ({"checkpoint": None} if name == "digits" else {})
    net = scrambled(nnx.eval_shape(replace(supernets.SUPERNETS[name], **changes).create), 3)
    return [extract(net, arch) for arch in architectures(net.space, 2)]


@pytest.mark.parametrize("name", [*SMALL, "digits"])
def test_once_for_all_s_classes_load_the_weights_and_predict_the_same(name, monkeypatch):
    torch = pytest.importorskip("torch")
    # Its networks import its data loader, which needs torchvision; they do not use it.
    monkeypatch.setitem(sys.modules, "ofa.utils.my_dataloader", types.ModuleType("ofa.utils.my_dataloader"))
    ofa = pytest.importorskip("ofa.imagenet_classification.networks")
    for net in small_network(name):
        config = net_config(net)
        original = ofa.get_net_by_name(config["name"]).build_from_config(copy.deepcopy(config)).eval()
        original.load_state_dict({key: torch.from_numpy(value) for key, value in state_dict(net).items()})
        images = noise(2, *net.input_shape)
        with torch.no_grad():
            found = original(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
        wanted = logits(net, images)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_a_pytorch_file_can_be_loaded(digits, tmp_path):
    torch = pytest.importorskip("torch")
    extracted, images = digits
    file = extracted.export(tmp_path / "net.pth")
    content = torch.load(file, weights_only=True)
    assert content["image_size"] == 8 and content["config"] == net_config(extracted.network)
    np.testing.assert_allclose(run_published(file, images[:3]), logits(extracted.network, images[:3]), rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "digits"])
def test_net_config_has_the_widths_of_the_weights(name):
    """Every block has the input width of the block before, and weights of the shapes in its settings."""
    for net in small_network(name):
        config, weights = net_config(net), state_dict(net)
        blocks = [block.get("conv", block) for block in config["blocks"]]
        assert len(blocks) == sum(key.endswith(("point_linear.conv.weight", "conv3.conv.weight")) for key in weights)
        for one, other in pairwise(blocks):
            assert one["out_channels"] == other["in_channels"]
        for i, block in enumerate(blocks):
            middle = block["mid_channels"] or block["in_channels"]
            parts = ("conv1", "conv2", "conv3") if config["name"] == "ResNets" else (
                "conv.inverted_bottleneck", "conv.depth_conv", "conv.point_linear")  # fmt: skip
            place, last = (f"blocks.{i}.{part}.conv.weight" for part in parts[1:])
            assert weights[place].shape[0] == middle and weights[place].shape[2:] == (block["kernel_size"],) * 2
            assert weights[last].shape == (block["out_channels"], middle, 1, 1)
            first = f"blocks.{i}.{parts[0]}.conv.weight"
            assert (first in weights) == (block["mid_channels"] is not None)
            assert first not in weights or weights[first].shape == (middle, block["in_channels"], 1, 1)
        assert weights["classifier.linear.weight"].shape == (
            config["classifier"]["out_features"], config["classifier"]["in_features"])  # fmt: skip
        assert json.loads(json.dumps(config)) == config


def test_the_safetensors_file_holds_state_dict_and_net_config(digits, written):
    extracted, _ = digits
    with safe_open(written / "ofa.safetensors", framework="numpy") as file:
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
    assert facts["config"] == net_config(extracted.network) and facts["image_size"] == 8
    found, wanted = load_file(written / "ofa.safetensors"), state_dict(extracted.network)
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_a_network_of_another_family_has_no_once_for_all_format():
    net = SuperNet([Attend(nnx.Rngs(0))], (2, 3, 6))
    for made in (net_config, state_dict):
        with pytest.raises(ValueError, match="only Once-for-All's families"):
            made(net)


# -- end to end -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mobilenet_v3_at_224_pixels_is_searched_extracted_and_exported_in_every_format(tmp_path, monkeypatch, capsys):
    """With the seeded weights of the golden values."""
    import ofa_golden
    from PIL import Image

    name = "ofa_mbv3_d234_e346_k357_w1.0"
    monkeypatch.chdir(tmp_path)
    save_file(ofa_golden.published(name), "ofa.safetensors")
    rng = np.random.default_rng(0)
    for part, number in (("train", 4), ("val", 4)):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            for i in range(number):
                grid = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(64, 0).repeat(64, 1)
                Image.fromarray(grid).save(folder / f"{i}.png")
    words = [f"supernet={name}", "supernet.checkpoint=ofa.safetensors", "task=image_folder", "task.path=images"]
    sizes = ["evaluator.batch=4", "evaluator.calibration_examples=8", "tactic=random", "evaluations=2"]
    timed = ["hardware=cpu", "hardware.table=false", "hardware.networks=6", "hardware.seconds=1"]
    goals = ["hardware.file=timed.jsonl", "objectives=[accuracy_top1,latency]"]
    assert main(["search", *words, *sizes, *timed, *goals, "run=run"]) == 0
    assert main(["extract", "run=run", "select=knee", "export=stablehlo,onnx,safetensors", "out=net"]) == 0
    printed = capsys.readouterr().out
    assert "each file loaded again and compared" in printed
    row = next(line for line in reversed(printed.splitlines()) if re.match(r"\W*\d+\s", line))
    predicted, measured = map(float, re.findall(r"\d+\.?\d*", row)[1:3])
    assert 0.2 < predicted / measured < 5
    images = tasks.image_classification("images").test.inputs[:2]
    assert images.shape[1:] == (224, 224, 3)
    wanted = run_onnx(tmp_path / "net" / "network.onnx", images)
    found = run_stablehlo(tmp_path / "net" / "network.stablehlo", images)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-5 * np.abs(wanted).max())
    assert np.ptp(wanted, axis=0).max() > 0.01 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["network.stablehlo", "network.onnx"])
def test_the_loading_code_in_the_docs_runs_without_nasjax(written, tmp_path, name):
    """Runs the code of docs/export.md in a new process; ten lines at most."""
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f'"net/{name}"' in block]
    assert lines.count("\n") <= 10
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / name).write_bytes((written / name).read_bytes())
    check = "import sys\nassert logits.shape == (4, 10)\nassert not {'nasjax', 'flax', 'torch'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", lines + check], cwd=tmp_path, check=True)
