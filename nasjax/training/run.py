"""Trains a super-network or an extracted network; writes a folder of weights and a record of settings and scores."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from nasjax import supernets, tasks
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, EvaluatorConfig, MaskedConfig, measure
from nasjax.host import replace_file, write_text
from nasjax.jax_defaults import with_jax_defaults
from nasjax.objectives import Objective
from nasjax.registry import settings
from nasjax.runs.folder import STARTED, TRAINING_RECORD, check_seed, plain_data
from nasjax.runs.inputs import absolute_inputs
from nasjax.supernets import SuperNet
from nasjax.supernets.checkpoints import read_facts as read_stored_facts
from nasjax.supernets.checkpoints import weights_digest
from nasjax.supernets.folders import load, read_facts, save_network
from nasjax.tasks import Task
from nasjax.training import TRAINERS
from nasjax.training.base import TrainerConfig
from nasjax.training.checkpoints import CHECKPOINTS, newest, store, training_folder
from nasjax.training.loop import DivergedError, Training, TrainingState, store_statistics
from nasjax.training.ranking import RANKING, drawn_archs, rank, train_alone
from nasjax.training.watch import Watch
from nasjax.types import Arch
from nasjax.version import __version__
from nasjax.words import plural

BEST = "best.safetensors"
"""The weights of the epoch whose watched scores were best on average, where that is not the last."""

SCORE = "score"
"""The fact, in that file, of what this average was."""

SAVE_SECONDS = 30.0
"""A checkpoint is written after so many seconds, and when training is interrupted."""


def not_logged(step: int, metrics: Mapping[str, float]) -> None:
    """Stores metrics nowhere."""


def nothing_more(record: Mapping[str, Any]) -> None:
    """What is done with a record that is all that a training leaves beside its weights."""


@with_jax_defaults
def train_run(
    path: Path,
    config: Mapping[str, Any],
    command: str,
    progress: Callable[[int, int, float, Mapping[str, float]], None],
    ranked: Callable[[int, int, float], None],
    log: Callable[[int, Mapping[str, float]], None] = not_logged,
    finish: Callable[[Mapping[str, Any]], None] = nothing_more,
) -> dict[str, Any]:
    """Trains as configured and writes weights and `record.json` into `path`; returns the record.

    `progress` is called after every epoch with its number, the number of epochs, the mean loss, and scores by name if any;
    `ranked` after every network that is trained alone, see `ranking.rank`. `log` is called after every epoch with the step
    and with epoch, loss, learning rate and scores by name; after a training is resumed, for some steps again. `finish` is
    called with the written record before the training counts as ended: the same command repeats what was interrupted.

    A super-network's weights are `supernet.safetensors`; an extracted network (`config["subnet"]`) is written as a
    folder for `nasjax.load`. A stopped training continues from its last checkpoint. Where scoring fails, the weights
    are written all the same, and the next call scores them. Raises ConfigError, without writing anything, if the folder is
    that of a training that has ended or of another, or settings are invalid; and where losses are not finite: the weights
    before are then written.
    """
    check_seed(config["seed"])
    settled = plain_data(absolute_inputs(config))
    net, teacher = _network(config), _teacher(config)
    task = tasks.create(**config["task"])
    trainer = settings("trainer", TRAINERS, config["trainer"])
    _check_fits(trainer, task, net, teacher)
    evaluator = settings("evaluator", EVALUATORS, config["evaluator"])
    origin = {"nasjax": __version__, "weights": weights_digest(net), "task": task.digest()}
    if teacher is not None:
        origin["teacher"] = weights_digest(teacher)
    training = Training(trainer, net, task, jax.random.key(config["seed"]), teacher)
    with training_folder(path, settled, origin):
        state = newest(path / CHECKPOINTS, training.begin())
        if state.steps:
            steps = plural(state.steps % training.steps_per_epoch, "step")
            done = f"{training.epoch(state)} of {plural(trainer.epochs, 'epoch')} and {steps}"
            print(f"nasjax: run={path} resumes after {done}", file=sys.stderr)
        elif advice := trainer.advice(net):
            print(f"nasjax: {advice}", file=sys.stderr)
        try:
            last = _run(path, training, state, progress, log)
            store(path / CHECKPOINTS, last)  # Scoring may be interrupted.
        except DivergedError as error:
            trained = training.network(error.state)
            _write_weights(path, config, net, task, trained)
            _end_best(path, training, trained)
            raise ConfigError(f"{error}; the weights before are in {path}") from None
        trained = training.network(last)
        _write_weights(path, config, net, task, trained)
        _end_best(path, training, trained)
        record: dict[str, Any] = {
            "command": command, "seed": config["seed"], "version": __version__, "complete": False,
            "jax": jax.__version__,
            "metric": task.objectives[0].name, "signatures": dict(task.signatures), "scores": {}, "settings": settled,
        }  # fmt: skip
        if config["subnet"] is None:
            ends = {"largest": (trained, net.space.largest()), "smallest": (trained, net.space.smallest())}
        else:
            ends = {"before": (net, net.space.smallest()), "after": (trained, net.space.smallest())}
        try:
            for name, (network, arch) in ends.items():
                record["scores"][name] = _scores(evaluator, network, task, arch)
            if trainer.alone:
                record["ranking"] = _ranking(path, config, training, trained, evaluator, ranked)
            record["complete"] = True
        finally:  # Where scoring fails, the record has the scores so far, and the same command continues.
            write_text(path / TRAINING_RECORD, json.dumps(record, indent=1) + "\n")
        finish(record)
        (path / STARTED).unlink()  # First: without it the training has ended, whatever is left of its checkpoints.
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
    return record


def _check_fits(trainer: TrainerConfig, task: Task, net: SuperNet, teacher: SuperNet | None) -> None:
    """Raises ConfigError for networks that do not fit the task, and for settings that do not fit both."""
    for network in (net, teacher):
        if network is not None:
            task.check(network)
    if task.train is task.validation:
        raise ConfigError(
            "the training examples are the validation examples, so that scores would be of what was learnt: keep some apart "
            "(of a folder of images, task.validation=0.4 task.test=0.4 keeps a fifth)"
        )
    if trainer.alone and net.space.size == 1:
        raise ConfigError(f"trainer.alone={trainer.alone} ranks sub-networks, and this network has none: leave it out")
    if trainer.batch > len(task.train):
        raise ConfigError(f"trainer.batch={trainer.batch}, but the task has {len(task.train)} training examples: reduce it")


def _run(
    path: Path,
    training: Training,
    state: TrainingState,
    progress: Callable[[int, int, float, Mapping[str, float]], None],
    log: Callable[[int, Mapping[str, float]], None] = not_logged,
) -> TrainingState:
    """The last state of a training. It is stored every SAVE_SECONDS, and where training is interrupted or fails."""
    stored = time.monotonic()
    with Watch(path, training, state) if training.config.watch else nullcontext() as watch:

        def ended(state: TrainingState) -> None:
            scores = {} if watch is None else watch(state)
            if watch is not None and scores:
                _keep_best(path, training, state, watch.metric, float(np.mean([*scores.values()])))
            epoch = training.epoch(state)
            named = {name.replace(" ", "_"): score for name, score in scores.items()}
            log(state.steps, {"epoch": epoch, "loss": state.loss, "learning_rate": training.rate(state), **named})
            progress(epoch, training.config.epochs, state.loss, scores)

        try:
            if watch is not None and watch.lacks(state):  # Scoring was interrupted.
                ended(state)
            for after in training.run(state):
                state = after
                if training.ends_epoch(state):
                    ended(state)
                if time.monotonic() - stored > SAVE_SECONDS:
                    store(path / CHECKPOINTS, state)
                    stored = time.monotonic()
        except DivergedError:
            raise
        except BaseException:
            store(path / CHECKPOINTS, state)
            raise
    return state


def _keep_best(path: Path, training: Training, state: TrainingState, metric: Objective, score: float) -> None:
    """Keeps the weights that scored best so far, unless they are the last: those are written anyway.

    Their score is stored with them. It counts for a training, too, that goes on from before them: it comes by them again.
    """
    kept = read_stored_facts(path / BEST).get(SCORE) if (path / BEST).exists() else None
    if kept is not None and metric.beats(kept, score):
        return
    if training.epoch(state) == training.config.epochs:
        (path / BEST).unlink(missing_ok=True)
    else:
        supernets.save_weights(training.unscored(state), path / BEST, {SCORE: score})


def _end_best(path: Path, training: Training, trained: SuperNet) -> None:
    """Gives the weights that scored best, if they are not the last, their batch-norm statistics."""
    if (path / BEST).exists():
        best = supernets.load_weights(lambda: nnx.clone(trained), path / BEST)
        store_statistics(best, training.task, min(training.config.batch, len(training.task.train)))
        score = read_stored_facts(path / BEST).get(SCORE)
        supernets.save_weights(best, path / BEST, {**trained.facts, SCORE: score})


def _ranking(
    path: Path,
    config: Mapping[str, Any],
    training: Training,
    trained: SuperNet,
    evaluator: EvaluatorConfig,
    ranked: Callable[[int, int, float], None],
) -> dict[str, Any]:
    """Random sub-networks against the same trained alone, from new weights."""
    trainer, key = training.config, jax.random.fold_in(jax.random.key(config["seed"]), 1)
    fresh = _network({**config, "largest": None, "supernet": {**config["supernet"], "checkpoint": None}})
    archs = drawn_archs(trained, trainer.alone, key)
    alone = train_alone(trainer, fresh, training.task, archs, key, trainer.alone_epochs)
    # One program scores all weights; the values are those of any other way.
    masked = MaskedConfig(**{field.name: getattr(evaluator, field.name) for field in fields(EvaluatorConfig)})
    return rank(path / RANKING, archs, trained, alone, masked, training.task, ranked)


def _write_weights(path: Path, config: Mapping[str, Any], net: SuperNet, task: Task, trained: SuperNet) -> None:
    if config["subnet"] is None:
        trained.facts = {"supernet": config["supernet"]["name"], **task.facts()}
        supernets.save_weights(trained, path / "supernet.safetensors", dict(trained.facts))
    else:
        trained.facts = {**net.facts, **task.facts()}
        saved = read_facts(config["subnet"])
        save_network(trained, saved["supernet"], saved["arch"], path)
    for name, content in task.files().items():
        replace_file(path / name, content)


def _network(config: Mapping[str, Any]) -> SuperNet:
    """The network to be trained: the super-network, or the extracted network in the folder `subnet`."""
    if config["subnet"] is not None:
        if config["largest"] is not None:
            raise ConfigError(f"subnet={config['subnet']} is what is trained: leave largest= out")
        return load(config["subnet"])
    supernet = dict(config["supernet"])
    if supernet.get("checkpoint") == "shipped":  # Training starts from random weights.
        supernet["checkpoint"] = None
    if config["largest"] is not None:
        return supernets.from_largest(config["largest"], seed=config["seed"], **supernet)
    net = supernets.create(seed=config["seed"], **supernet)
    if not isinstance(net, SuperNet):
        raise ConfigError(f"supernet={supernet['name']} has no weights to train")
    return net


def _teacher(config: Mapping[str, Any]) -> SuperNet | None:
    """The super-network, with the weights in the file `teacher`, that an extracted network learns from; None without."""
    if config["teacher"] is None:
        return None
    if config["subnet"] is None:
        raise ConfigError(f"teacher={config['teacher']} is for a network that was extracted (subnet=FOLDER)")
    supernet = {**read_facts(config["subnet"])["supernet"], "checkpoint": config["teacher"]}
    teacher: SuperNet = supernets.create(**supernet)
    return teacher


def _scores(evaluator: EvaluatorConfig, net: SuperNet, task: Task, arch: Arch) -> dict[str, float]:
    """The task's first metric of a re-calibrated architecture, by split."""
    bound = evaluator.bind(net, task)
    metric, splits = task.objectives[0].name, ("validation", "test")
    return {split: round(measure(bound.on(split), arch[None])[metric].item(), 4) for split in splits}
