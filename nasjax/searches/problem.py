"""What a search is about: a super-network with all that can be known of its sub-networks, measured or computed."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from nasjax.deploy.subnet import Extracted, deliver
from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS, Halving, processes
from nasjax.evaluation.fastest import bound
from nasjax.evaluation.halving import Values
from nasjax.evaluation.processes import leading
from nasjax.evaluation.proxies import Score, proxies
from nasjax.hardware.costs import CostTable, cost_tables
from nasjax.hardware.profile import Profile, Timed
from nasjax.hardware.profiling import profile
from nasjax.objectives import OBJECTIVES
from nasjax.outline import Block, outline
from nasjax.registry import record, settings
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Population

PROXY_IMAGES = 32
"""Training pictures that a proxy looks at."""


class Evaluator(Protocol):
    """Measures at most `chunk` architectures at once; `context` names all that the values depend on."""

    chunk: int
    metrics: tuple[str, ...]
    context: Mapping[str, Any]

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]: ...


def measure(evaluator: Evaluator, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
    """Every metric of a population of any size, chunk by chunk."""
    parts = [evaluator(archs[i : i + evaluator.chunk]) for i in range(0, len(archs), evaluator.chunk)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, eq=False)
class Subject:
    """A super-network on a task: `evaluator` measures, `costs` compute, `ranges` bound every value before it is known.

    `test` makes an evaluator on pictures that no search sees; `extract` slices a sub-network out. `origin` records how all
    this was made. `rows` are the only architectures that can be measured, and `repair` replaces others by those; None where
    all can. `blocks` are what a network is drawn as; none where only its genes are known. `proxies` are
    cheap scores of architectures, more is better. `estimates` are what is measured, but known well before: a latency model.
    `leading` holds while other processes, where there are any, do their part of what is measured.
    `identity` is what a run's measurements depend on, the timing aside, which is in its settings.
    """

    space: SearchSpace
    evaluator: Evaluator
    costs: Mapping[str, CostTable]
    ranges: Mapping[str, tuple[float, float]]
    origin: Mapping[str, Any]
    test: Callable[[], Evaluator] | None = None
    extract: Callable[[tuple[int, ...]], Extracted] | None = None
    rows: Population | None = None
    repair: Callable[[Population], Population] | None = None
    blocks: tuple[Block, ...] = ()
    proxies: Mapping[str, Score] = field(default_factory=dict)
    estimates: Mapping[str, Any] = field(default_factory=dict)
    leading: Callable[[], AbstractContextManager[None]] = nullcontext
    identity: Mapping[str, Any] = field(default_factory=dict)

    def compute(self, archs: Population) -> dict[str, np.ndarray]:
        """Every exact cost, as int64."""
        return {name: table.exact(archs) for name, table in self.costs.items()}


class Measurable(Evaluator, Protocol):
    """A super-network that measures by itself: a table, a function of somebody else's."""

    space: SearchSpace
    origin: Mapping[str, Any]
    costs: Mapping[str, CostTable]
    """What is known exactly without measuring."""

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Least and greatest value of every metric; NaN where that is not known."""

    def rows(self) -> Population | None:
        """The only architectures that can be measured; None where all can."""

    def nearest(self, archs: Population) -> Population:
        """Those of `rows` that are meant by any architectures."""


def subject(
    net: SuperNet | Measurable, task: ImageClassification | None, evaluator: Any = "masked", hardware: Any = None
) -> Subject:
    """Joins a super-network, the task it is used for and the way it is evaluated (a name, a mapping or settings).

    With `hardware`, likewise or a `Profile`, sub-networks are timed on it; a profile takes minutes to make.

    Raises ConfigError where they do not fit.
    """
    if not isinstance(net, SuperNet):
        if hardware is not None:
            raise ConfigError("hardware needs a super-network of layers: a table or a function has its own latency column")
        origin = {"supernet": net.origin, "task": None, "evaluator": None}
        rows = net.rows()
        repair = None if rows is None else net.nearest
        ranges = {**net.ranges(), **_ranges(net.costs)}
        return Subject(net.space, net, net.costs, ranges, origin, rows=rows, repair=repair, proxies=_exact(net.costs),
                       identity=net.context)  # fmt: skip
    if task is None:
        raise ConfigError("a super-network needs a task to be measured on")
    check_fit(net, task)
    config = settings("evaluator", EVALUATORS, evaluator)
    costs = cost_tables(net)
    ranges = task.ranges() | _ranges(costs)
    origin = {"supernet": net.origin, "task": task.origin, "evaluator": record(EVALUATORS, config)}
    evaluator = bound(config, net, task)
    made = hardware if hardware is None or isinstance(hardware, Profile) else profile(net, hardware)
    if made is not None:
        ranges |= made.ranges()
        origin["hardware"] = made.origin
    scored = Halving(evaluator, _compared(task, costs)) if config.first_pictures else evaluator
    timed: Evaluator = scored if made is None else Timed(scored, made)
    return Subject(
        net.space,
        timed,
        costs,
        ranges,
        origin,
        test=lambda: evaluator.on("test"),
        extract=lambda arch: deliver(net, evaluator, arch, task.validation.images[: evaluator.batch]),
        blocks=outline(net.stages),
        proxies={**proxies(net, task.train.images[:PROXY_IMAGES], evaluator.chunk, config.memory_gb), **_exact(costs)},
        estimates={} if made is None else made.estimates(),
        leading=lambda: leading(evaluator),
        identity=evaluator.context,
    )


def follow(net: SuperNet | Measurable, task: ImageClassification | None = None, evaluator: Any = "masked") -> None:
    """Does this process's part of a search that the first of several processes makes; until that search is over.

    The processes are joined by `jax.distributed.initialize`, and have the same super-network, task and evaluator. Raises
    ValueError where these do not fit.
    """
    if isinstance(net, SuperNet) and task is not None:
        check_fit(net, task)
        processes.follow(settings("evaluator", EVALUATORS, evaluator).bind(net, task))


def _compared(task: ImageClassification, costs: Mapping[str, CostTable]) -> Values:
    """Halving compares by the task's first metric and exact multiply-accumulates, whatever the objectives are: its values
    must not depend on a search's."""
    name = task.metrics[0]
    sign = OBJECTIVES[name].sign
    return lambda archs, found: np.stack([sign * found[name], costs["macs"].exact(archs)], axis=1)


def _exact(costs: Mapping[str, CostTable]) -> dict[str, Score]:
    """Costs as scores: the larger, the better it may be."""
    return {name: table.exact for name, table in costs.items()}


def _ranges(costs: Mapping[str, CostTable]) -> dict[str, tuple[float, float]]:
    return {name: (0.0, float(table.maximum())) for name, table in costs.items()}


def check_fit(net: SuperNet, task: ImageClassification) -> None:
    """Raises ConfigError where the pictures or classes of a task are not those that a super-network takes."""
    shape = task.train.images.shape[1:]
    if shape != net.input_shape:
        raise ConfigError(
            f"the task's pictures are {'x'.join(map(str, shape))}, the super-network takes "
            f"{'x'.join(map(str, net.input_shape))}: change supernet.image_size or supernet.channels, or the data"
        )
    classes = net.output().shape[-1]
    if classes < task.classes:
        raise ConfigError(
            f"the task has {task.classes} classes, the super-network {classes}: change supernet.classes, or the labels"
        )
    for split in (task.train, task.validation, task.test):
        outside = split.labels[(split.labels < 0) | (split.labels >= task.classes)]
        if len(outside):
            raise ConfigError(f"the task has {task.classes} classes, from 0, and a picture of class {outside[0]}")
