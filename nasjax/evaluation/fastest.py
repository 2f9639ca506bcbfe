"""Remembers which way of evaluation was fastest, for a super-network, device and batch."""

import json
import logging
from hashlib import sha256
from pathlib import Path

import jax
import numpy as np

from nasjax.evaluation import EvaluatorConfig, PopulationEvaluator
from nasjax.evaluation.auto import WAYS, AutoConfig, fastest
from nasjax.host import processor_name, processors
from nasjax.supernets import SuperNet
from nasjax.tasks import ImageClassification

LOG = logging.getLogger(__name__)


def bound(config: EvaluatorConfig, net: SuperNet, task: ImageClassification) -> PopulationEvaluator:
    """An evaluator on the validation pictures; `auto` times its ways only where `config.file` does not know them yet."""
    if not isinstance(config, AutoConfig) or config.file is None:
        return config.bind(net, task)
    file, key = Path(config.file), _key(config, net)
    seconds = _known(file, key)
    if seconds is None:
        seconds = config.seconds(net, task)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as out:
                out.write(json.dumps({"key": key, "seconds": seconds}) + "\n")
        except OSError as error:  # What was timed serves this run all the same.
            LOG.warning("evaluator.file=%s cannot be written, the ways will be timed again: %s", file, error.strerror)
    return config.as_way(fastest(seconds)).bind(net, task)


def _key(config: AutoConfig, net: SuperNet) -> str:
    """All that the ways' speeds depend on: network, pictures' shape, batch, memory, devices, compiler."""
    devices = [device.device_kind for device in jax.devices()]
    facts = [repr(net.space), *(stage.settings() for stage in net.stages), net.input_shape, config.batch, config.chunk,
             config.memory_gb, config.cache_gb, devices, processor_name(), processors(), jax.lib.__version__]  # fmt: skip
    return sha256(repr(facts).encode()).hexdigest()[:16]


def _known(file: Path, key: str) -> dict[str, float] | None:
    """What a file remembers of a key, the last of it; a line that is not whole is passed over."""
    found = None
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
            if row["key"] == key:
                found = {name: float(row["seconds"][name]) for name in WAYS}
        except (ValueError, KeyError, TypeError):
            continue
    return found if found and np.isfinite(list(found.values())).any() else None
