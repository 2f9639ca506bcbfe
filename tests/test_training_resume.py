"""A training that is stopped anywhere goes on to the same weights; damaged checkpoints and full disks lose little."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_training import SMALL, TRAINER
from tiny import easy_task

from nasjax.errors import ConfigError
from nasjax.supernets.checkpoints import save_weights, tensors
from nasjax.supernets.extract import extract
from nasjax.tasks import Split
from nasjax.training import SandwichConfig, batches, checkpoints, run
from nasjax.training.batches import Bucket
from nasjax.training.loop import Training

EPOCHS = 3
CONFIG = {
    "seed": 3,
    "subnet": None,
    "largest": None,
    "teacher": None,
    "supernet": {"name": "tiny"},
    "task": {"name": "easy"},
    "trainer": {
        "name": "sandwich",
        "epochs": EPOCHS,
        "batch": 24,
        "learning_rate": 1e-2,
        "random_subnets": 1,
        "watch": False,
    },
    "evaluator": {"name": "masked", "calibration_examples": 24},
}


@pytest.fixture(scope="module")
def task():
    return easy_task((120, 60, 6), noise=0.4)


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """A program has one step, so that a training can be stopped after each; each is stored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "MOST_STEPS", 1)
        patch.setattr(run, "SAVE_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def fresh():
    """A network with one sub-network: it compiles fast."""
    net = nnx.jit(lambda: SMALL.create(0))()
    return extract(net, tuple(map(int, net.space.smallest())))


@pytest.fixture(scope="module")
def train(task, fresh):
    """Trains into a folder as the command does; `stop` is called after every epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_network", lambda config: fresh)
        patch.setattr(run, "_scores", lambda evaluator, net, task, arch: {"validation": 1.0})

        def trained(path, stop=lambda *given: None, task=task, log=run.not_logged, finish=run.nothing_more, **changes):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(run.tasks, "create", lambda **settings: task)
                return run.train_run(path, CONFIG | changes, "nasjax train", stop, lambda *given: None, log, finish)

        yield trained


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The folder of a training that was never stopped."""
    train(folder := tmp_path_factory.mktemp("whole") / "run")
    return folder


@pytest.fixture(scope="module")
def interrupted(train, tmp_path_factory):
    with pytest.raises(KeyboardInterrupt):
        train(folder := tmp_path_factory.mktemp("interrupted") / "run", interrupt_after(2))
    return folder


@pytest.fixture
def stopped(interrupted, tmp_path):
    """The folder of a training that was stopped after two epochs."""
    return Path(shutil.copytree(interrupted, tmp_path / "stopped"))


def weights(folder):
    return (folder / "supernet.safetensors").read_bytes()


def interrupt_after(epochs):
    def stop(done, planned, loss, scores):
        if done == epochs:
            raise KeyboardInterrupt

    return stop


def same(first, second):
    return all((value == second[name]).all() for name, value in first.items())


def test_a_training_that_is_continued_from_any_state_ends_with_the_same_weights_and_losses(task):
    net = nnx.jit(lambda: SMALL.create(0))()
    training = Training(replace(TRAINER, epochs=2), net, task, jax.random.key(5))
    states = list(training.run(training.begin()))
    assert [state.steps for state in states] == list(range(1, 11))
    assert [training.ends_epoch(state) for state in states] == 2 * [*4 * [False], True]
    wanted = tensors(training.network(states[-1]))
    for begun in states[:9:3]:
        *_, last = training.run(begun)
        assert same(tensors(training.network(last)), wanted)
        assert last.loss == pytest.approx(states[-1].loss, rel=1e-6)
    assert not list(training.run(states[-1]))


def test_batches_of_small_buckets_are_divided_into_parts_evenly():
    split = Split(np.zeros((20, 6), np.int32), np.zeros(20, np.int32), np.repeat([4, 6], [13, 7]))
    found = batches.buckets_of(split, 12, 4)
    assert [(bucket.batch, bucket.steps, bucket.examples[0].shape) for bucket in found] == [(12, 1, (13, 4)), (4, 1, (7, 6))]
    with pytest.raises(ConfigError, match=r"trainer\.accumulate=8 parts: only 7 training examples have length 6"):
        batches.buckets_of(split, 16, 8)


def test_steps_of_several_buckets_are_those_of_an_uninterrupted_epoch():
    buckets = [Bucket({"x": np.arange(number)}, number, 3) for number in (7, 9, 3)]
    key = jax.random.key(0)
    whole = [(len(bucket.examples["x"]), rows.tolist()) for bucket, rows, _ in batches.batches_of(buckets, key)]
    assert sorted(number for number, _ in whole) == [3, 7, 7, 9, 9, 9]
    for done in range(7):
        rest = batches.after(batches.batches_of(buckets, key), done)
        assert [(len(bucket.examples["x"]), rows.tolist()) for bucket, rows, _ in rest] == whole[done:]


@pytest.mark.slow
def test_an_interrupted_command_goes_on_to_the_same_weights(train, whole, stopped, capsys):
    assert not (stopped / "record.json").exists()
    seen = []
    record = train(stopped, lambda *given: seen.append(given[0]))
    assert seen == [3]
    assert "resumes after 2 of 3 epochs and 0 steps" in capsys.readouterr().err
    assert weights(stopped) == weights(whole)
    assert record == json.loads((whole / "record.json").read_text()) == json.loads((stopped / "record.json").read_text())
    assert {file.name for file in stopped.iterdir()} == {"supernet.safetensors", "record.json", ".lock"}
    with pytest.raises(ConfigError, match=r"stopped is a training that has ended; name another folder, or remove it"):
        train(stopped)


def test_every_epoch_is_logged_once_by_its_step_also_of_an_interrupted_training(train, tmp_path):
    logged, losses = [], {}

    def progress(epoch, planned, loss, scores):
        losses[epoch] = loss
        interrupt_after(2)(epoch, planned, loss, scores)

    def log(step, metrics):
        logged.append((step, metrics))

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", progress, log=log)
    train(tmp_path / "run", progress, log=log)
    assert [step for step, _ in logged] == [5, 10, 15]
    assert [(metrics["epoch"], metrics["loss"]) for _, metrics in logged] == list(losses.items())
    assert all(0 < metrics["learning_rate"] <= 1e-2 for _, metrics in logged[:2])


def test_a_training_that_was_killed_while_it_tidied_up_has_ended(train, whole, tmp_path, monkeypatch):
    """It is not trained again."""

    removed = shutil.rmtree

    def killed(folder, **named):
        if Path(folder).name == "checkpoints":
            raise KeyboardInterrupt
        removed(folder, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run.shutil, "rmtree", killed)
        train(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "record.json").read_text())["complete"]
    with pytest.raises(ConfigError, match="run is a training that has ended"):
        train(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)


def test_what_is_interrupted_after_the_record_is_repeated_by_the_same_command(train, whole, tmp_path):
    def interrupted(record):
        assert json.loads((tmp_path / "run" / "record.json").read_text()) == record
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", finish=interrupted)
    finished, epochs = [], []
    record = train(tmp_path / "run", lambda *given: epochs.append(given), finish=finished.append)
    assert finished == [record] and record["complete"] and not epochs
    assert weights(tmp_path / "run") == weights(whole)
    assert not (tmp_path / "run" / "training.json").exists()


def test_what_failed_in_scoring_is_scored_by_the_same_command(train, whole, tmp_path, monkeypatch):
    """The weights are there already; nothing is trained again."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(run, "_scores", lambda *given: 1 / 0)
        train(tmp_path / "run")
    assert not json.loads((tmp_path / "run" / "record.json").read_text())["complete"]
    assert weights(tmp_path / "run") == weights(whole)
    seen = []
    record = train(tmp_path / "run", lambda *given: seen.append(given[0]))
    assert not seen and record["complete"] and record["scores"] and weights(tmp_path / "run") == weights(whole)


def damage(folder):
    """Half of every file of the newest checkpoint is lost."""
    newest = max((folder / "checkpoints").iterdir(), key=lambda inside: int(inside.name))
    for file in newest.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return newest.name


def test_a_damaged_checkpoint_is_told_and_the_one_before_serves(train, whole, stopped, capsys):
    assert damage(stopped) == "10"
    train(stopped)
    told = capsys.readouterr().err
    assert "checkpoints/10 cannot be read" in told
    assert "resumes after 1 of 3 epochs and 4 steps" in told
    assert weights(stopped) == weights(whole)


def test_a_full_disk_is_told_and_training_goes_on(train, tmp_path, monkeypatch, capsys):
    def full(state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "_stored", full)
    monkeypatch.setattr(run, "newest", lambda folder, fresh: fresh)
    assert train(tmp_path / "run")["scores"]
    assert "no checkpoint of step 1 (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "was started with seed=3, not 4; repeat it to continue, or name another folder"),
        ({"trainer": CONFIG["trainer"] | {"batch": 12}}, "was started with trainer.batch=24, not 12; repeat"),
        ({"task": easy_task((120, 60, 6), noise=0.5)}, "was started with other examples; restore them"),
    ],
)
def test_other_settings_and_examples_are_refused_in_a_line(train, stopped, changes, message):
    before = sorted(stopped.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        train(stopped, **changes)
    assert sorted(stopped.rglob("*")) == before


def test_another_version_of_nasjax_is_named(train, stopped, monkeypatch):
    monkeypatch.setattr(run, "__version__", "99.0")
    with pytest.raises(
        ConfigError, match=r"stopped was started by nasjax \d[\w.]+, this is 99\.0: continue with that version"
    ):
        train(stopped)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 3, "origin": {}}'])
def test_a_damaged_file_of_settings_is_one_line(train, stopped, content):
    (stopped / "training.json").write_text(content)
    with pytest.raises(ConfigError, match=r"training\.json"):
        train(stopped)


def test_a_folder_of_something_else_is_refused(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="run exists already; name another folder, or remove it"):
        train(tmp_path / "run")


def test_a_loss_that_is_not_finite_leaves_the_weights_before(train, fresh, task, tmp_path, monkeypatch):
    """From the seventh step on."""
    trainer = SandwichConfig(**{name: value for name, value in CONFIG["trainer"].items() if name != "name"})
    training = Training(trainer, fresh, task, jax.random.key(CONFIG["seed"]))
    wanted = training.network(next(state for state in training.run(training.begin()) if state.steps == 6))
    save_weights(wanted, tmp_path / "wanted.safetensors", {"supernet": "tiny", **task.facts()})
    original = Training._steps

    def broken(training, *given):
        weights, optimised, losses = original(training, *given)
        return weights, optimised, losses + jnp.where(optimised.steps >= 7, jnp.nan, 0.0)

    monkeypatch.setattr(Training, "_steps", broken)
    with pytest.raises(ConfigError, match=r"the loss is nan in epoch 2, step 2 of 5: reduce trainer.learning_rate; the w"):
        train(tmp_path / "run")
    assert weights(tmp_path / "run") == (tmp_path / "wanted.safetensors").read_bytes()
    assert not (tmp_path / "run" / "record.json").exists()
