"""A trained network becomes the largest sub-network of a super-network, or the teacher of one that was extracted."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import CONFIG, close, easy_task, scrambled

from nasjax import supernets
from nasjax.cli import main
from nasjax.errors import ConfigError
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import save_network
from nasjax.training import PlainConfig
from nasjax.training.loop import Training


@pytest.fixture(scope="module")
def digits():
    return supernets.create("digits")


@pytest.fixture
def folder(digits, tmp_path, monkeypatch):
    """The digits' largest and smallest sub-network, as `nasjax extract` writes them."""
    monkeypatch.chdir(tmp_path)
    for name in ("largest", "smallest"):
        arch = tuple(map(int, getattr(digits.space, name)()))
        Path(name).mkdir()
        save_network(extract(digits, arch), digits.origin, arch, Path(name))
    return tmp_path


@pytest.mark.slow
def test_an_extracted_largest_network_is_the_largest_sub_network(digits, folder):
    """Its smaller kernels are the centres of the largest ones."""
    net = supernets.from_largest("largest", "digits", checkpoint=None)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    largest = tuple(map(int, net.space.largest()))
    close(net(images, largest), digits(images, largest), 1e-5)
    conv = net.stages[1].depthwise.conv
    small, whole = (conv.weights(conv.kernel.shape[3], size, conv.kernel.shape[3]) for size in (3, 5))
    np.testing.assert_array_equal(small, whole[1:-1, 1:-1])
    assert net.untrained is None and net.space == digits.space
    # Units that matter come first.
    blocks = [stage for stage in net.stages if hasattr(stage, "hidden_widths")]
    norms = [np.abs(np.asarray(stage.project.conv.kernel[...])).sum((0, 1, 3)) for stage in blocks]
    assert all((np.diff(norm) <= 0).all() for norm in norms) and len(norms) > 2


@pytest.mark.slow
def test_a_network_under_published_names_serves_too(digits, folder):
    assert main(["extract", "subnet=largest", "export=safetensors", "out=published"]) == 0
    net = supernets.from_largest("published/ofa.safetensors", "digits", checkpoint=None)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    largest = tuple(map(int, net.space.largest()))
    close(net(images, largest), digits(images, largest), 1e-5)


def test_other_networks_are_refused(folder):
    with pytest.raises(ConfigError, match="checkpoint of another super-network"):
        supernets.from_largest("smallest", "digits", checkpoint=None)
    with pytest.raises(ConfigError, match="largest=nowhere is not a file: it does not exist"):
        supernets.from_largest("nowhere", "digits", checkpoint=None)
    with pytest.raises(ConfigError, match=r"largest=largest has the weights: leave supernet\.checkpoint=x out"):
        supernets.from_largest("largest", "digits", checkpoint="x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["teacher=x.safetensors"], "teacher=x.safetensors is for a network that was extracted (subnet=FOLDER)"),
        (["trainer.batch=901"], "trainer.batch=901, but the task has 900 training examples: reduce it"),
        (["subnet=smallest", "largest=largest"], "subnet=smallest is what is trained: leave largest= out"),
        (["subnet=smallest", "trainer=progressive"], "this network has none that is elastic: trainer=plain trains it"),
        (["subnet=smallest", "trainer.alone=5"], "trainer.alone=5 ranks sub-networks, and this network has none"),
        (["trainer=progressive", "trainer.epochs=2"], "trainer.epochs=2 is too few: progressive shrinking has"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder, capsys, words, said):
    before = sorted(folder.iterdir())
    assert main(["train", *words, "run=run"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and sorted(folder.iterdir()) == before


@pytest.mark.slow
def test_an_extracted_network_learns_from_its_teacher_s_largest_sub_network():
    """The loss by hand: targets and the teacher's outputs count alike; the teacher does not change."""
    net, task = scrambled(nnx.eval_shape(lambda: CONFIG.create(0)), 3), easy_task((24, 6, 6))
    small = extract(net, tuple(map(int, net.space.smallest())))
    config = PlainConfig(epochs=2, batch=24, shift=0, precision="float32")
    training = Training(config, small, task, jax.random.key(0), net)
    images, labels = jnp.asarray(task.train.inputs), jnp.asarray(task.train.targets)
    student = jax.nn.log_softmax(small.forward(images, (0,) * len(small.space.genes), None)[0])
    teacher = jax.nn.softmax(net.forward(images, tuple(map(int, net.space.largest())), None)[0])
    wanted = (-student[jnp.arange(24), labels].mean() - (teacher * student).sum(-1).mean()) / 2
    first, last = list(training.run(training.begin()))
    assert first.loss == pytest.approx(float(wanted), rel=1e-4)
    close(jax.tree.leaves(last.teacher), jax.tree.leaves(nnx.state(net, nnx.Param)), 0)
    assert not np.allclose(jax.tree.leaves(first.weights)[0], jax.tree.leaves(nnx.state(small, nnx.Param))[0])
