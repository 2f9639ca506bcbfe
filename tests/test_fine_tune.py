"""A network that was extracted can be trained on, and is printed as what it is."""

import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import architectures, scrambled, step_of

import nasjax
from nasjax import supernets, tasks
from nasjax.cli import main
from nasjax.export import run_stablehlo
from nasjax.supernets.checkpoints import tensors
from nasjax.supernets.elastic import Conv
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import save_network
from nasjax.training.losses import step_loss
from nasjax.training.sandwich import SandwichConfig


@pytest.fixture
def subnet(tmp_path, monkeypatch):
    """A folder with the digits' smallest network, as `nasjax extract` writes it."""
    monkeypatch.chdir(tmp_path)
    net = supernets.create("digits")
    arch = tuple(map(int, net.space.smallest()))
    Path("subnet").mkdir()
    save_network(extract(net, arch), net.origin, arch, Path("subnet"))
    return Path("subnet")


@pytest.mark.slow
def test_an_extracted_network_is_tuned_in_a_folder_that_loads(subnet, capsys):
    words = ["trainer.epochs=2", "trainer.learning_rate=1e-3", "evaluator.chunk=1", "run=tuned"]
    assert main(["train", f"subnet={subnet}", *words]) == 0
    printed = capsys.readouterr().out
    made = {path.name for path in Path("tuned").iterdir()}
    assert {"config.json", "network.safetensors", "record.json", "curves.csv"} <= made
    assert not made & {"checkpoints", "training.json", "supernet.safetensors"}
    before, after = nasjax.load(subnet), nasjax.load("tuned")
    assert after.space == before.space and "tuned" in printed
    assert json.loads(Path("tuned/config.json").read_text()) == json.loads(Path("subnet/config.json").read_text())
    changed = [name for name, value in tensors(before).items() if not (tensors(after)[name] == value).all()]
    assert changed == list(tensors(before))
    record = json.loads(Path("tuned/record.json").read_text())
    assert record["settings"]["subnet"] == os.path.abspath("subnet") and set(record["scores"]) == {"before", "after"}
    # Its own batch-norm statistics, of all training images, are stored with it.
    task = tasks.create("digits")
    logits = np.asarray(jax.jit(after.__call__)(task.test.inputs))
    accuracy = 100 * (logits.argmax(1) == task.test.targets).mean()
    assert accuracy == pytest.approx(record["scores"]["after"]["test"], abs=1.5)
    assert accuracy > 90


def test_the_loss_of_an_only_network_is_that_of_the_labels():
    net = scrambled(nnx.eval_shape(supernets.SUPERNETS["digits"].create), 2)
    small, task = extract(net, architectures(net.space, 1)[1]), tasks.create("digits")
    images, labels = jnp.asarray(task.train.inputs[:8]), jnp.asarray(task.train.targets[:8])
    found = jax.jit(
        lambda images: step_loss(small, task, images, labels, SandwichConfig().subnets(step_of(small, jax.random.key(0))))
    )(images)
    forward = jax.jit(lambda images: small.forward(images, (0,) * len(small.space.genes), None)[0])
    logits = np.asarray(forward(images), np.float64)
    logits -= logits.max(1, keepdims=True)
    wanted = (np.log(np.exp(logits).sum(1)) - logits[np.arange(8), np.asarray(labels)]).mean()
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["subnet=nowhere"], "nowhere holds no extracted network: it has no config.json"),
        (["subnet=subnet", "supernet=digits"], "subnet=subnet says what is trained: leave supernet= out"),
        (["subnet=subnet", "run=subnet"], "run=subnet exists already"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(subnet, capsys, words, said):
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["subnet"]


# -- exported again ---------------------------------------------------------------------------------------------------------


def test_a_network_in_a_folder_is_given_other_forms_beside_its_own(subnet, capsys):
    assert main(["extract", f"subnet={subnet}", "export=stablehlo,safetensors", "batch=20"]) == 0
    printed = capsys.readouterr().out
    names = ["config.json", "network.safetensors", "network.stablehlo", "ofa.safetensors"]
    assert sorted(path.name for path in subnet.iterdir()) == names
    task = tasks.create("digits")
    images = task.validation.inputs[:20]
    logits = jax.jit(nasjax.load(subnet).__call__)(task.validation.inputs)
    np.testing.assert_allclose(run_stablehlo(subnet / "network.stablehlo", images), logits[:20], atol=1e-4)
    accuracy = 100 * (np.asarray(logits).argmax(1) == task.validation.targets).mean()
    assert float(re.search(r"accuracy_top1 ([\d.]+)", printed).group(1)) == pytest.approx(accuracy, abs=100 / 600 + 0.006)
    # All or none: the second is there already.
    (subnet / "network.stablehlo").unlink()
    assert main(["extract", f"subnet={subnet}", "export=stablehlo,safetensors"]) == 2
    assert "ofa.safetensors exists already" in capsys.readouterr().err
    assert not (subnet / "network.stablehlo").exists()


@pytest.mark.slow
def test_a_network_s_images_are_those_that_it_was_trained_with(subnet, capsys):
    settings = {"task": {"name": "image_folder", "path": "nowhere"}}
    (subnet / "record.json").write_text(json.dumps({"settings": settings}))
    assert main(["extract", f"subnet={subnet}", "export=safetensors", "out=other"]) == 2
    assert "nowhere" in capsys.readouterr().err and not Path("other").exists()
    assert main(["extract", f"subnet={subnet}", "task=digits", "export=safetensors", "out=other"]) == 0
    names = ["config.json", "network.safetensors", "ofa.safetensors"]
    assert sorted(path.name for path in Path("other").iterdir()) == names
    for name in names[:2]:
        assert (Path("other") / name).read_bytes() == (subnet / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["subnet=nowhere", "export=onnx"], "nowhere holds no extracted network"),
        (["subnet=subnet"], "subnet=subnet is extracted already: say what for, export="),
        (["subnet=subnet", "select=knee", "export=onnx"], "says which network: leave select= out"),
        (["subnet=subnet", "supernet=digits", "export=onnx"], "says which network: leave supernet= out"),
        (["subnet=subnet", "export=onnx", "out=subnet/config.json"], "exists already"),
        (["subnet=subnet", "export=onnx", "batch=few"], "batch=few is not a number of examples"),
        (["run=subnet", "export=onnx"], "run=subnet is a network, not a search: say subnet=subnet"),
    ],
)
def test_mistakes_of_an_export_are_one_line_and_leave_nothing(subnet, capsys, words, said):
    assert main(["extract", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(path.name for path in Path().rglob("*")) == ["config.json", "network.safetensors", "subnet"]


# -- in words ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(3))
def test_a_network_is_printed_as_it_is(tiny_net, index):
    """Against its weights: every kernel's sizes, in the order of the calls, and the one option of every gene."""
    small = extract(tiny_net, architectures(tiny_net.space, 1)[index])
    head, *lines = str(small).splitlines()
    weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(small, nnx.Param)))
    assert head == f"MobileNetV3: {len(small.stages)} stages, {weights:,} weights, images 7 x 7 x 3"
    assert len(lines) == len(small.stages)
    for line, stage in zip(lines, small.stages, strict=True):
        assert [f"{gene.name}={gene.options[0]}" for gene in stage.reads] == re.findall(r"\w+=\d+", line)
        kernels = [module.kernel.shape for _, module in nnx.iter_modules(stage) if isinstance(module, Conv)]
        found = [(int(k), int(n)) for k, n in re.findall(r"(\d)x\d (?:\d+→)?(\d+)", line)]
        assert sorted(found) == sorted((shape[0], shape[3]) for shape in kernels)
    block = next(line for line, stage in zip(lines, small.stages, strict=True) if stage.genes)
    assert re.findall(r"(?<!\.)expand \d|depthwise|project", block) == ["expand 1", "depthwise", "project"]


def test_a_super_network_is_printed_with_all_its_options():
    line = str(supernets.abstract("digits")).splitlines()[3]
    assert " ".join(line.split()) == (
        "2 InvertedBottleneck depth_1=1|2 kernel_1_2=3|5 expand_1_2=2|3|4 "
        "expand 1x1 16→64 relu, depthwise 3x3|5x5 64 relu, project 1x1 64→16"
    )
