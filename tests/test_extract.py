"""Extracted networks answer as the super-network does, carry no more weight than they need, and survive the disk."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny import architectures, close, images, scrambled, tiny_network

from nasjax.evaluation.calibration import calibrate
from nasjax.registry import record
from nasjax.supernets import SUPERNETS, load_weights, save_weights
from nasjax.supernets.checkpoints import tensors
from nasjax.supernets.elastic import Conv
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import load, save_network

IMAGES = jnp.asarray(images(4))


def archs(net):
    return architectures(net.space, 2)


def weights_of(net):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net)))


def jitted(net, arch=None, statistics=None):
    graph, weights = nnx.split(net)

    def run(weights, statistics):
        net = nnx.merge(graph, weights)
        return net(IMAGES, arch) if statistics is None else net.forward(IMAGES, arch, statistics)[0]

    return jax.jit(run)(weights, statistics)


def same_weights(net, other):
    a, b = tensors(net), tensors(other)
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("index", range(1, 4))
def test_extracted_is_static_and_masked(tiny_net, index):
    arch = archs(tiny_net)[index]
    small = extract(tiny_net, arch)
    logits = jitted(small)
    close(logits, jitted(tiny_net, arch), 0)
    close(logits, jitted(tiny_net, jnp.asarray(arch, jnp.int32)), 1e-5)


def test_statistics_given_are_kept(tiny_net):
    """Those of calibration, full width, narrowed like the weights."""
    arch = archs(tiny_net)[2]
    batches = jnp.asarray(images(12, seed=3)).reshape(3, 4, 7, 7, 3)
    graph, weights = nnx.split(tiny_net)
    calibrated = jax.jit(lambda weights: calibrate(nnx.merge(graph, weights), jnp.asarray(arch, jnp.int32), batches))(
        weights
    )
    before = tensors(tiny_net)
    small = extract(tiny_net, arch, calibrated)
    logits = jitted(small)
    close(logits, jitted(tiny_net, arch, calibrated), 0)
    assert np.abs(logits - jitted(extract(tiny_net, arch))).max() > 0.01
    assert all((before[name] == value).all() for name, value in tensors(tiny_net).items())  # the super-network is untouched


def test_what_an_extracted_network_is(tiny_net):
    for arch in archs(tiny_net) + architectures(tiny_net.space, 6, seed=5):
        small = extract(tiny_net, arch)
        chosen = tiny_net.space.decode(np.array(arch))
        assert type(small) is type(tiny_net)
        assert small.space.size == 1 and set(small.space.counts) == {1}
        found = small.space.decode(np.zeros(len(small.space.genes), np.int32))
        assert found.items() <= chosen.items()
        assert set(chosen) - set(found) <= {"depth_1", "depth_2"}  # a depth whose blocks are all gone is no gene
        assert len(small.stages) == 3 + chosen["depth_1"] + chosen["depth_2"]
        blocks = [stage for stage in small.stages if stage.genes]
        sizes = [stage.depthwise.conv.kernel.shape[0] for stage in blocks]
        assert sizes == [chosen[gene.name] for stage in blocks for gene in stage.genes if "kernel" in gene.name]
        assert not any("transforms" in name for name in tensors(small))
        assert all(not module.transforms for _, module in nnx.iter_modules(small) if isinstance(module, Conv))
        assert weights_of(small) < weights_of(tiny_net)  # even the largest: its transforms are gone
    counts = [weights_of(extract(tiny_net, arch)) for arch in archs(tiny_net)]
    assert counts[1] == min(counts) < max(counts) == counts[0]


def test_the_largest_keeps_every_other_weight(tiny_net):
    large = tensors(extract(tiny_net, archs(tiny_net)[0]))
    whole = {name: value for name, value in tensors(tiny_net).items() if "transforms" not in name}
    assert list(large) == list(whole)
    assert all((large[name] == whole[name]).all() for name in whole)


def test_the_smallest_keeps_the_first_channels(tiny_net):
    small, whole = tensors(extract(tiny_net, archs(tiny_net)[1])), tensors(tiny_net)
    for part in ("expand.conv.kernel", "project.norm.scale", "depthwise.norm.variance", "excite.reduce.kernel"):
        kept, full = small[f"stages.2.{part}"], whole[f"stages.2.{part}"]
        np.testing.assert_array_equal(kept, full[tuple(slice(size) for size in kept.shape)])
    assert small["stages.2.depthwise.conv.kernel"].shape == (3, 3, 1, 8)


def test_extracting_again_changes_nothing(tiny_net):
    small = extract(tiny_net, archs(tiny_net)[3])
    again = extract(small, (0,) * len(small.space.genes))
    same_weights(small, again)
    assert again.space == small.space


# -- on disk ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a network extracted from the digits' super-network, and that network."""
    folder = tmp_path_factory.mktemp("network")
    config = SUPERNETS["digits"]
    net = scrambled(nnx.eval_shape(config.create), 2)
    arch = tuple(map(int, net.space.sample_raw(jax.random.key(4), 1)[0]))
    small = extract(net, arch)
    save_network(small, record(SUPERNETS, config, "digits"), arch, folder)
    return folder, small


def test_a_saved_network_comes_back_bit_by_bit(saved):
    folder, small = saved
    again = load(folder)
    same_weights(small, again)
    assert again.space == small.space and len(again.stages) == len(small.stages)
    assert again.origin["name"] == "digits"
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    logits = [jax.jit(net.__call__)(images) for net in (small, again)]
    assert (logits[0] == logits[1]).all() and logits[0].shape == (2, 10)
    facts = json.loads((folder / "config.json").read_text())
    assert facts["choices"] == small.space.decode(np.zeros(len(small.space.genes), np.int32))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "network.safetensors"]


def test_a_folder_without_a_network(tmp_path):
    with pytest.raises(ValueError, match="holds no extracted network: it has no config"):
        load(tmp_path)


@pytest.mark.parametrize("config", ["{}", "[]", "", '{"supernet": {"name": "digits"}}'])
def test_a_folder_of_somebody_else_s_network(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json is damaged \(.*\): nasjax extract writes it anew"):
        load(tmp_path)


def copied(saved, folder, change=None):
    """The saved network in another folder, its tensors changed."""
    (folder / "config.json").write_text((saved[0] / "config.json").read_text())
    found = load_file(saved[0] / "network.safetensors")
    if change is not None:
        change(found)
    save_file(found, folder / "network.safetensors")


def test_weights_that_are_missing_unexpected_or_misshapen_are_named(saved, tmp_path):
    copied(saved, tmp_path)
    same_weights(load(tmp_path), saved[1])

    copied(saved, tmp_path, lambda found: (found.pop("stages.1.expand.norm.mean"), found.pop("stages.3.expand.norm.mean")))
    with pytest.raises(ValueError, match=r"another super-network: it has no tensor 'stages\.1\.expand\.norm\.mean'"):
        load(tmp_path)

    copied(saved, tmp_path, lambda found: found.update(z=np.zeros(1), more=np.zeros(1)))
    with pytest.raises(ValueError, match="another super-network: tensor 'more' is unexpected"):
        load(tmp_path)

    copied(saved, tmp_path, lambda found: found.update({"stages.0.conv.conv.kernel": np.zeros((3, 3, 1, 9), np.float32)}))
    with pytest.raises(
        ValueError, match=r"'stages\.0\.conv\.conv\.kernel' has shape \(3, 3, 1, 9\), \(3, 3, 1, 8\) is expected"
    ):
        load(tmp_path)


def test_a_checkpoint_that_cannot_be_read(saved, tmp_path):
    copied(saved, tmp_path)
    whole = (tmp_path / "network.safetensors").read_bytes()
    for data in (b"", b"not safetensors at all", whole[:-10]):
        (tmp_path / "network.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=r"network\.safetensors (is empty|cannot be read as safetensors)"):
            load(tmp_path)
    (tmp_path / "network.safetensors").unlink()
    with pytest.raises(ValueError, match="is not a file: it does not exist"):
        load(tmp_path)


def test_a_super_network_of_other_sizes_is_refused(tiny_net, tmp_path):
    save_weights(tiny_net, tmp_path / "weights", {"seed": 1})
    same_weights(load_weights(lambda: tiny_network(2), tmp_path / "weights"), tiny_net)
    with pytest.raises(ValueError, match=r"tensor 'stages\.\d\.\S+' has shape \(\S*"):
        load_weights(lambda: tiny_network(2, widths=(8, 16)), tmp_path / "weights")
    with pytest.raises(ValueError, match=r"it has no tensor 'stages\.\d\.excite"):
        load_weights(lambda: tiny_network(2, squeeze_excite=(True, True)), tmp_path / "weights")


def test_a_failed_write_leaves_the_old_file(tiny_net, tmp_path, monkeypatch):
    path = tmp_path / "weights"
    save_weights(tiny_net, path, {})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(tiny_network(3), path, {})
    assert path.read_bytes() == before
