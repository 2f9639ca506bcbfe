"""Images that are read from disk as they are needed: the same values and weights as in memory, few of them at a time."""

import gc
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from test_training import SMALL, TRAINER
from tiny import architectures, tiny_network

from nasjax import tasks
from nasjax.cli import main
from nasjax.deploy.subnet import validation_metrics
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, Halving
from nasjax.evaluation.calibration import calibrate, calibrate_by_batches
from nasjax.supernets.checkpoints import tensors
from nasjax.supernets.extract import extract
from nasjax.tasks.image_files import ImageFiles, in_threads
from nasjax.training import batches, run
from nasjax.training.loop import Training, train

PER_CLASS = 50


def paint(folder, number=PER_CLASS):
    """Random images of three classes, of different brightness."""
    rng = np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(60 * label, 60 * label + 130, (9, 8 + i % 3, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("images"))


def create(folder, memory_share, **changes):
    shares = {"validation": 0.36, "test": 0.16, **changes}  # 72 for training, 54 and 24.
    return tasks.image_classification(folder, image_size=7, memory_share=memory_share, **shares)


@pytest.fixture(scope="module")
def held(folder):
    return create(folder, 1.0)


@pytest.fixture(scope="module")
def on_disk(folder):
    return create(folder, 0.0)


@pytest.fixture
def reads(monkeypatch):
    """(images asked for, images alive that were decoded by these calls) of every read."""
    made, alive = [], []
    decode = ImageFiles.__getitem__

    def counted(self, index):
        images = decode(self, index)
        if images.ndim > 3:
            alive.append(weakref.ref(images))
            gc.collect()
            made.append((images[..., 0, 0, 0].size, sum(one()[..., 0, 0, 0].size for one in alive if one() is not None)))
        return images

    monkeypatch.setattr(ImageFiles, "__getitem__", counted)
    return made


def same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_it_has_the_attributes_and_values_of_the_array(held, on_disk):
    array, files = held.train.inputs, on_disk.train.inputs
    assert isinstance(array, np.ndarray) and isinstance(files, ImageFiles)
    assert (files.shape, files.dtype, files.ndim, files.nbytes, len(files)) == (
        array.shape, array.dtype, array.ndim, array.nbytes, len(array),
    )  # fmt: skip
    for index in (3, -1, slice(5, 11), slice(None, None, 7), np.array([4, 4, 0]), np.array([[1, 2], [3, 70]]), ...):
        np.testing.assert_array_equal(files[index], array[index])
    np.testing.assert_array_equal(np.asarray(files), array)
    view = files.at(np.array([[5, 2], [-1, 9]]))
    np.testing.assert_array_equal(view, np.stack([array[[5, 2]], np.stack([0 * array[0], array[9]])]))
    assert view.shape == (2, 2, 7, 7, 3) and view.at(np.array([1, -1])).shape == view.shape
    np.testing.assert_array_equal(view.at(np.array([1, -1]))[:, 1], [array[9], 0 * array[0]])
    np.testing.assert_array_equal(on_disk.train.take(slice(4)).inputs, array[:4])


def test_the_digest_names_contents_and_how_they_are_read_wherever_images_are(folder, held, on_disk, tmp_path):
    assert on_disk.digest() == held.digest()
    same_files = paint(tmp_path / "elsewhere")
    assert create(same_files, 0.0).digest() == held.digest()
    assert create(folder, 0.0, crop=0.8).digest() != held.digest()
    assert create(folder, 0.0, mean=(0.5, 0.5, 0.5)).digest() != held.digest()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(same_files / "a" / "0.png")
    assert create(same_files, 0.0).digest() == create(same_files, 1.0).digest() != held.digest()


def test_other_inputs_than_those_read_have_a_digest_of_their_own(held):
    changed = held.changed(train=replace(held.train, inputs=held.train.inputs + 1))
    assert changed.digest() != held.digest()
    assert held.changed(train=held.train.take(slice(None))).digest() != held.digest()
    with pytest.raises(ValueError, match="read-only"):
        held.train.inputs[0] = 0


def test_images_are_on_disk_where_they_would_take_too_large_a_share_of_memory(folder, monkeypatch, capsys):
    needed = 3 * PER_CLASS * 7 * 7 * 3 * 4
    monkeypatch.setattr("nasjax.tasks.image_folder.memory_bytes", lambda: 2 * needed)
    assert isinstance(create(folder, 0.5).train.inputs, np.ndarray)
    assert capsys.readouterr().err == ""
    assert isinstance(create(folder, 0.49).train.inputs, ImageFiles)
    line = capsys.readouterr().err.splitlines()
    assert len(line) == 1 and "150 images of 7 x 7 take 8.82e-05 GB, this machine has 0.000176: they are read" in line[0]
    with pytest.raises(ConfigError, match=r"task\.memory_share must be 0 to 1, not 1\.5"):
        create(folder, 1.5)


@pytest.fixture(scope="module")
def net():
    return tiny_network(depths=((1, 2), (1,)), kernels=(3,), expands=(1, 2))


def bound(config, net, task):
    """An evaluator of small blocks of examples, which do not all fit the devices."""
    evaluator = config.bind(net, task)
    evaluator._room, evaluator._batches_per_block = 0, 1
    return evaluator


@pytest.mark.parametrize("name", ["masked", *(pytest.param(name, marks=pytest.mark.slow) for name in ("switch", "prefix"))])
def test_every_strategy_gives_the_values_of_images_in_memory(name, net, held, on_disk, reads):
    archs = np.array(architectures(net.space, 2), np.int32)
    config = EVALUATORS[name](batch=5, calibration_examples=15, chunk=4)
    values = bound(config, net, held)(archs)
    assert not reads
    evaluator = bound(config, net, on_disk)
    assert reads == [(15, 15)]  # For re-calibration.
    same(evaluator(archs), values)
    blocks, _ = evaluator._steps
    assert len(blocks) >= 6 and all(isinstance(block.inputs, ImageFiles) for block in blocks)
    most = max(block.weights.size for block in blocks)
    assert sum(number for number, _ in reads[1:]) >= 54 and max(number for number, _ in reads[1:]) <= most < 54
    assert max(living for _, living in reads[1:]) <= 15 + 2 * most
    assert evaluator.context == bound(config, net, held).context


@pytest.mark.slow
def test_images_that_fit_the_devices_are_read_once(net, held, on_disk, reads):
    archs = np.array(architectures(net.space, 1), np.int32)
    config = EVALUATORS["masked"](batch=20, calibration_examples=20, chunk=2)
    evaluator = config.bind(net, on_disk)
    wanted = config.bind(net, held)
    for chunk in (archs[:2], archs[1:]):
        same(evaluator(chunk), wanted(chunk))
    assert len(reads) == 2
    same(evaluator.on("test")(archs[:2]), wanted.on("test")(archs[:2]))


@pytest.mark.slow
def test_halving_and_augmented_recalibration_too(net, held, on_disk):
    archs = np.array(architectures(net.space, 4), np.int32)
    archs = np.unique(np.asarray(net.space.canonical(archs)), axis=0)
    config = EVALUATORS["prefix"](batch=8, calibration_examples=16, chunk=7, first_examples=10, augmentation="crop")
    scored = [
        Halving(bound(config, net, task), lambda archs, found: -found["accuracy_top1"][:, None]) for task in (held, on_disk)
    ]
    first, second = (halving(archs) for halving in scored)
    same(first, second)


@pytest.mark.slow
def test_extracted_networks_are_scored_from_disk(net, held, on_disk):
    network = extract(net, architectures(net.space, 0)[1])
    assert validation_metrics([network], on_disk, 20) == validation_metrics([network], held, 20)
    on_disk.check(net)


@pytest.fixture(scope="module")
def fresh():
    """A network with one sub-network: it compiles fast."""
    net = nnx.jit(lambda: SMALL.create(0))()
    return extract(net, tuple(map(int, net.space.smallest())))


def test_training_gives_the_weights_of_images_in_memory_and_goes_on_from_any_step(fresh, held, on_disk, monkeypatch):
    monkeypatch.setattr(batches, "MOST_STEPS", 2)
    config = replace(TRAINER, epochs=3, batch=12)  # 6 steps an epoch, 2 in a program.
    key = jax.random.key(1)
    wanted = tensors(train(config, fresh, held, key, lambda *_: None))
    training = Training(config, fresh, on_disk, key)
    states = list(training.run(training.begin()))
    assert [state.steps for state in states] == list(range(2, 19, 2))
    same(tensors(training.network(states[-1])), wanted)
    for begun in (states[1], states[6]):  # Within epochs.
        *_, last = training.run(begun)
        same(tensors(training.network(last)), wanted)


def test_examples_come_in_the_order_of_those_in_memory_and_few_ahead(held, on_disk, monkeypatch):
    monkeypatch.setattr(batches, "MOST_STEPS", 3)
    decoded = []
    decode = ImageFiles.image

    def counted(self, path):
        decoded.append(path)
        return decode(self, path)

    monkeypatch.setattr(ImageFiles, "image", counted)
    in_memory, in_files = (batches.buckets_of(task.train, 6) for task in (held, on_disk))
    for done in (0, 3, 9, 12):
        decoded.clear()
        wanted = batches.after(batches.batches_of(in_memory, jax.random.key(2)), done)
        found = batches.after(batches.batches_of(in_files, jax.random.key(2)), done)
        number = 0
        for (bucket, rows, keys), (own, positions, same_keys) in zip(wanted, found, strict=True):
            number += 1
            # Those of the program that runs, and of the next one.
            assert len(own.examples[0]) == 18 and len(decoded) <= 18 * (number + 1)
            assert (jax.random.key_data(keys) == jax.random.key_data(same_keys)).all()
            for leaf, other in zip(bucket.examples, own.examples, strict=True):
                np.testing.assert_array_equal(leaf[rows], other[positions])
        assert number == (12 - done) // 3 and len(decoded) == 18 * number


def test_steps_of_large_examples_run_in_small_programs(held, on_disk, monkeypatch):
    """As many in memory as in files: the number of steps in a program may change the rounding."""
    monkeypatch.setattr(batches, "MOST_BYTES", 6 * (7 * 7 * 3 * 4 + 4) * 5)
    for task in (held, on_disk):
        buckets = batches.buckets_of(task.train, 6)
        assert {rows.shape for _, rows, _ in batches.batches_of(buckets, jax.random.key(0))} == {(4, 6)}
    monkeypatch.setattr(batches, "MOST_BYTES", 1)
    assert {rows.shape for _, rows, _ in batches.batches_of(buckets, jax.random.key(0))} == {(1, 6)}


@pytest.mark.slow
def test_statistics_by_batches_are_those_of_all_at_once(net, held):
    largest = jnp.asarray(net.space.largest())
    whole = calibrate(net, largest, held.train.inputs[:60].reshape(3, 20, 7, 7, 3))
    found = calibrate_by_batches(net, largest, held.train.inputs, 20)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def broken(folder, split, task):
    """Cuts an image of a split off in the middle."""
    files = getattr(task, split).inputs
    path = files.paths[files.rows[1]]
    path.write_bytes(path.read_bytes()[:-60])
    return path


@pytest.mark.parametrize("split", ["validation", "test"])
def test_broken_images_that_are_needed_last_are_found_first(tmp_path, split):
    folder = paint(tmp_path / "images", 10)
    path = broken(folder, split, create(folder, 0.0))
    with pytest.raises(ConfigError, match=rf"{path} cannot be read as an image \(.*\); task\.skip_broken=true skips such"):
        create(folder, 0.0)


def test_skipped_images_are_those_skipped_in_memory(tmp_path, capsys):
    folder = paint(tmp_path / "images", 10)
    path = broken(folder, "train", create(folder, 0.0))
    held, on_disk = (create(folder, share, skip_broken=True) for share in (1.0, 0.0))
    assert capsys.readouterr().err.splitlines() == 2 * [f"nasjax: skipped 1 image that cannot be read, {path} first"]
    assert len(held.train) == len(on_disk.train) == len(on_disk.train.inputs)
    np.testing.assert_array_equal(on_disk.train.inputs, held.train.inputs)
    np.testing.assert_array_equal(on_disk.train.targets, held.train.targets)
    assert on_disk.digest() == held.digest()


def test_a_training_that_meets_a_broken_image_ends_with_one_line_and_its_last_state(tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(batches, "MOST_STEPS", 1)
    folder = paint(tmp_path / "images", 10)
    task = create(folder, 0.0)
    training = Training(replace(TRAINER, epochs=2, batch=3, watch=False), fresh, task, jax.random.key(0))
    stored = []
    monkeypatch.setattr(run, "store", lambda folder, state: stored.append(state.steps))

    def cut_off(*_):
        broken(folder, "train", task)

    with pytest.raises(ConfigError, match=r"\.png cannot be read as an image"):
        run._run(tmp_path, training, training.begin(), cut_off)
    assert len(stored) == 1 and training.steps_per_epoch <= stored[0] < 2 * training.steps_per_epoch


@pytest.mark.parametrize("number", [0, 1, 2, 4097, 9001])
def test_threads_keep_the_order_and_raise_what_a_call_raises(number):
    assert in_threads(lambda i: i * i, number) == [i * i for i in range(number)]
    if number:
        with pytest.raises(ZeroDivisionError):
            in_threads(lambda i: 1 // (number - 1 - i), number)


def test_a_training_on_its_own_validation_images_is_refused(folder, tmp_path, capsys):
    """As the default shares have it, which a search takes for re-calibration; they are in memory once."""
    task = tasks.image_classification(folder, image_size=8)
    assert task.train is task.validation and len(task.train) == len(task.test) == 75
    run_path = tmp_path / "run"
    words = ["task=image_folder", f"task.path={folder}", "task.image_size=8", "supernet.channels=3", "supernet.classes=3"]
    assert main(["train", *words, f"run={run_path}"]) == 2
    said = capsys.readouterr().err
    assert "task.validation=0.4 task.test=0.4 keeps a fifth" in said and said.count("\n") == 1
    assert not run_path.exists()
