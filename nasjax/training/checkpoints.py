"""The folder of a training: locked while in use, continued with the same settings; its checkpoints, by orbax."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax.errors import ConfigError, naming_damage, one_line
from nasjax.host import new_place, parse_json, read_text, write_text
from nasjax.runs.folder import STARTED, TRAINING_RECORD, flatten_settings, is_unstarted, locked
from nasjax.training.loop import TrainingState

CHECKPOINTS = "checkpoints"

ORIGINS = {"weights": "weights", "task": "examples", "teacher": "weights of the teacher"}
"""What a training begins with beside its settings, in words."""

KEPT = 2
"""How many checkpoints are kept: if the last one is damaged, the one before serves."""


@contextmanager
def training_folder(path: Path, settings: Mapping[str, Any], origin: Mapping[str, str]) -> Iterator[None]:
    """Makes the folder of a training, or takes up one that has not ended; it is locked until the block ends.

    `origin`: digests of what is trained, and on what. Raises ConfigError for a folder that is in use, that is none of a
    training or of one that has ended, and where settings or `origin` differ from those that it was started with.
    """
    if not (path / STARTED).is_file() and (path / TRAINING_RECORD).exists():
        raise ConfigError(f"run={path} is a training that has ended; name another folder, or remove it to train anew")
    if not ((path / STARTED).is_file() or (path.exists() and is_unstarted(path))):
        new_place(f"run={path}", path, "folder")
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if (path / STARTED).is_file():
            _check_same(path, settings, origin)
        else:
            write_text(path / STARTED, json.dumps({"settings": settings, "origin": origin}, indent=1) + "\n")
        yield


def _check_same(path: Path, settings: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """Raises ConfigError, which names the first setting that differs."""
    with naming_damage(path / STARTED, "name another run="):
        started = parse_json(read_text(path / STARTED))
        before, now = flatten_settings(started["settings"]), flatten_settings(settings)
        other = sorted(key for key in {*started["origin"], *origin} if started["origin"].get(key) != origin.get(key))
        version = started["origin"]["nasjax"]
    for key in (*before, *now):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"run={path} was started with {key}={before.get(key)}, not {now.get(key)}; repeat it to continue, or "
                "name another folder"
            )
    if "nasjax" in other:
        raise ConfigError(
            f"run={path} was started by nasjax {version}, this is {origin['nasjax']}: continue with that version, or name "
            "another folder"
        )
    if other:
        what = " and ".join(ORIGINS[key] for key in other)
        raise ConfigError(f"run={path} was started with other {what}; restore them, or name another folder")


def newest(folder: Path, fresh: TrainingState) -> TrainingState:
    """The newest state that can be read in a folder of checkpoints; `fresh`, of the same shapes, without any.

    A line on the error output tells of those that cannot be read.
    """
    if not folder.is_dir():
        return fresh
    import orbax.checkpoint as ocp  # Takes seconds.

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _stored(fresh))
    with _manager(folder) as manager:
        for steps in sorted(manager.all_steps(), reverse=True):
            try:
                found = manager.restore(steps, args=ocp.args.StandardRestore(shapes))
            except Exception as error:  # Whatever a damaged file makes of orbax.
                print(f"nasjax: {folder / str(steps)} cannot be read ({one_line(error)}): left out", file=sys.stderr)
                shutil.rmtree(folder / str(steps))  # Orbax stores no step that is not after the last one.
                continue
            arrays = [found["arrays"][name] for name in sorted(found["arrays"])]
            weights, optimised, teacher = jax.tree.unflatten(
                jax.tree.structure((fresh.weights, fresh.optimised, fresh.teacher)), arrays
            )
            return TrainingState(weights, optimised, teacher, steps, float(found["loss"]))
    return fresh


def store(folder: Path, state: TrainingState) -> None:
    """Adds a checkpoint, and removes the oldest; a line on the error output tells where the disk is full."""
    import orbax.checkpoint as ocp

    try:
        with _manager(folder) as manager:
            if state.steps not in manager.all_steps():
                manager.save(state.steps, args=ocp.args.StandardSave(_stored(state)))
    except (OSError, ValueError) as error:  # Of its own files orbax raises the one, of tensorstore's the other.
        print(f"nasjax: no checkpoint of step {state.steps} ({one_line(error)}): training continues", file=sys.stderr)


@contextmanager
def _manager(folder: Path) -> Iterator[Any]:
    """Orbax's manager of a folder of checkpoints. Partial ones, which a killed process leaves, are removed."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True)
    manager = ocp.CheckpointManager(folder.absolute(), options=options)
    try:
        yield manager
    finally:
        manager.close()


def _stored(state: TrainingState) -> dict[str, Any]:
    """A state as orbax stores it: arrays by their place, whatever trees they are in."""
    leaves = jax.tree.leaves((state.weights, state.optimised, state.teacher))
    return {"arrays": {f"{i:05}": leaf for i, leaf in enumerate(leaves)}, "loss": np.float64(state.loss)}
