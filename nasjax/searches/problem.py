"""Search problem: evaluator, exact costs, metric ranges of a super-network's sub-networks on a task."""

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nasjax import tasks
from nasjax.deploy.subnet import Extracted, extract_subnet
from nasjax.errors import ConfigError
from nasjax.evaluation import (
    EVALUATORS,
    Evaluator,
    EvaluatorConfig,
    EvaluatorSetting,
    Halving,
    PopulationEvaluator,
    measure,
    processes,
)
from nasjax.evaluation.halving import ComparedValues
from nasjax.evaluation.processes import LeadingEvaluator, leading
from nasjax.evaluation.proxies import Score, proxies
from nasjax.graphs import Graph
from nasjax.hardware.costs import CostTable, cost_tables
from nasjax.hardware.profile import Hardware, Profile, Timed
from nasjax.hardware.profiling import ProfilingProgress, profiling
from nasjax.jax_defaults import with_jax_defaults
from nasjax.objectives import BOOKKEEPING, Goals, Objective, measurable
from nasjax.outline import OutlineBlock
from nasjax.registry import record, settings
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet, untrained_warning
from nasjax.supernets.outlines import outline
from nasjax.tasks import Task
from nasjax.types import Population

PROXY_EXAMPLES = 32
"""Training examples that a proxy reads."""


@dataclass(frozen=True)
class GeneValue:
    """A gene's option as an exact cost, which constraints bound; `off` is its value where the gene is switched off.

    Equal instances compile once.
    """

    space: SearchSpace
    name: str
    off: float

    def exact(self, archs: Population) -> Float[np.ndarray, " pop"]:
        """The options of canonical architectures in float64, on the host."""
        archs, (column,) = np.asarray(archs), self.space.columns((self.name,))
        options = np.array(self.space.genes[column].options, np.float64)
        return np.where(self.space.active(archs)[:, column], options[archs[:, column]], self.off)

    def estimate(self, archs: Population) -> Float[Array, " pop"]:
        """The same in float32, for use within jit."""
        archs, (column,) = jnp.asarray(archs), self.space.columns((self.name,))
        options = jnp.asarray(np.array(self.space.genes[column].options, np.float32))
        return jnp.where(self.space.active(archs)[:, column], options[archs[:, column]], self.off)


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """A super-network on a task: `evaluator` measures, `costs` compute, `measurable` has an objective for each of both.

    `test` makes an evaluator on examples that no search sees; `extract` extracts a sub-network. `origin` records how all
    this was made. `rows` are the only architectures that can be measured, and `repair` replaces others by those; None where
    all can. `blocks` are what a network is drawn as; none where only its genes are known. `proxies` are cheap scores of
    architectures, more is better. `estimates` are jittable models of measured metrics, such as a latency model. `leading`
    holds while other processes, where there are any, do their part of what is measured. `identity` is what a run's
    measurements depend on, the timing aside, which is in its settings. `left_out` says of what cannot be a metric why.
    `scored` names the metrics that depend on weights, `untrained` says where these are not trained. `signatures` say how
    metrics are computed (`Task.signatures`), `methods` by what: the strategy of evaluation, and how well latencies are
    estimated, as far as it is known when it is called. `graph` is that of cells, where one is declared.
    """

    space: SearchSpace
    evaluator: Evaluator
    costs: Mapping[str, CostTable]
    measurable: Mapping[str, Objective]
    origin: Mapping[str, Any]
    test: Callable[[], Evaluator] | None = None
    extract: Callable[[tuple[int, ...]], Extracted] | None = None
    rows: Population | None = None
    repair: Callable[[Population], Population] | None = None
    blocks: tuple[OutlineBlock, ...] = ()
    proxies: Mapping[str, Score] = field(default_factory=dict)
    estimates: Mapping[str, Any] = field(default_factory=dict)
    leading: Callable[[], AbstractContextManager[None]] = nullcontext
    identity: Mapping[str, Any] = field(default_factory=dict)
    scored: frozenset[str] = frozenset()
    untrained: Callable[[], str | None] = lambda: None
    signatures: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    methods: Callable[[], Mapping[str, str]] = dict
    graph: Graph | None = None

    def check_named(self, goals: Sequence[str]) -> None:
        """Raises ConfigError, which says why, where objectives or constraints name a column that a table left out."""
        for goal in goals:
            name = re.split("[<>]=", goal.strip().removeprefix("max:").removeprefix("min:"))[0].strip()
            if name in self.left_out:
                raise ConfigError(self.left_out[name])

    def warning(self, names: Iterable[str]) -> str | None:
        """What is to be known of the values of these metrics, in a line: that the weights are untrained. None: nothing."""
        return None if self.scored.isdisjoint(names) else self.untrained()

    def compute(self, archs: Population) -> dict[str, np.ndarray]:
        """Every exact cost, as int64."""
        return {name: table.exact(archs) for name, table in self.costs.items()}

    def bounded_genes(self, goals: Goals) -> dict[str, GeneValue]:
        """The genes that constraints name. Where one is switched off, its constraints hold."""
        return {
            column.name: GeneValue(self.space, column.name, min(max(0.0, low), high))
            for column, (low, high) in zip(goals.columns, goals.limits, strict=True)
            if column.name in self.space.names
        }


class SelfMeasuring(Evaluator, Protocol):
    """A super-network that measures itself: a table, or somebody else's function."""

    space: SearchSpace
    origin: Mapping[str, Any]
    costs: Mapping[str, CostTable]
    """Costs known exactly without measuring."""

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Least and greatest value of every metric; NaN where that is not known."""

    def rows(self) -> Population | None:
        """The only architectures that can be measured; None where all can."""

    def nearest(self, archs: Population) -> Population:
        """Those of `rows` that are nearest to any architectures."""


def search_problem(
    net: SuperNet | SelfMeasuring,
    task: Task | None,
    evaluator: EvaluatorSetting = "auto",
    networks: int | None = None,
) -> SearchProblem:
    """Joins a super-network, its task and an evaluator (a name, a mapping or settings).

    `networks` is how many sub-networks will be evaluated, where that is known: `evaluator=auto` goes by it.

    Raises ConfigError where they do not fit.
    """
    if isinstance(net, SuperNet):
        if task is None:
            raise ConfigError("a super-network needs a task to be measured on")
        return _of_network(net, task, evaluator, networks)
    rows = net.rows()
    _check_names(net.space, [*net.ranges(), *net.costs])
    return SearchProblem(
        net.space,
        net,
        net.costs,
        measurable({**net.ranges(), **_cost_ranges(net.costs)}, tasks.OBJECTIVES),
        {"supernet": net.origin, "task": None, "evaluator": None},
        rows=rows,
        repair=None if rows is None else net.nearest,
        proxies=_costs_as_scores(net.costs),
        identity=net.context,
        left_out=getattr(net, "left_out", {}),
        graph=getattr(net, "graph", None),
    )


def profiling_for(
    net: SuperNet | SelfMeasuring, task: Task | None, hardware: Hardware | Profile
) -> Generator[ProfilingProgress, None, Profile]:
    """Profiles a super-network on hardware (a name, a mapping or settings), as its task runs it; a `Profile` stays as it is.

    Yields after every program that was timed. Raises ConfigError as `profiling` does, and for what has no layers.
    """
    if not isinstance(net, SuperNet):
        raise ConfigError("hardware needs a super-network of layers: a table or a function has its own latency column")
    if isinstance(hardware, Profile):
        return hardware
    shapes = net.shapes() if task is None else net.shapes(task.steps, task.beams)
    return (yield from profiling(shapes, hardware))


def timed_problem(problem: SearchProblem, profile: Profile) -> SearchProblem:
    """The problem of a super-network whose sub-networks are timed, too. Raises ConfigError where names collide."""
    known = {**problem.measurable, **measurable(profile.ranges())}
    _check_names(problem.space, known, ["latency_predicted"])
    return replace(
        problem,
        evaluator=Timed(problem.evaluator, profile),
        measurable=known,
        origin={**problem.origin, "hardware": profile.origin},
        estimates=profile.estimates(),
        methods=lambda: {**problem.methods(), "latency": profile.summary()},
    )


def _of_network(net: SuperNet, task: Task, evaluator: EvaluatorSetting, networks: int | None) -> SearchProblem:
    task.check(net)
    config = settings("evaluator", EVALUATORS, evaluator)
    shapes = net.shapes(task.steps)
    costs = cost_tables(shapes)
    known = {objective.name: objective for objective in task.objectives}
    known |= measurable(_cost_ranges(costs))
    origin = {"supernet": net.origin, "task": task.origin, "evaluator": record(EVALUATORS, config)}
    # Beside the record: it does not change what is measured.
    config = config.expecting(networks)
    bound = config.bind(net, task)
    if jax.process_count() > 1:
        bound = LeadingEvaluator.of(bound)
    measured: Evaluator = _halving(config, bound, net, task, costs) if config.first_examples else bound
    _check_names(net.space, known, [*(f"test_{name}" for name in bound.metrics), "latency_predicted"])
    examples = task.train.take(slice(PROXY_EXAMPLES)).inputs
    return SearchProblem(
        net.space,
        measured,
        costs,
        known,
        origin,
        test=lambda: bound.on("test"),
        extract=lambda arch: extract_subnet(net, bound, arch, task.validation.take(slice(bound.batch)).inputs),
        blocks=outline(net.stages),
        proxies={**proxies(net, examples, bound.chunk, config.memory), **_costs_as_scores(costs)},
        leading=lambda: leading(bound),
        identity=bound.context,
        scored=frozenset(objective.name for objective in task.objectives),
        untrained=cache(lambda: untrained_warning(net)),
        signatures=task.signatures,
        methods=lambda: {"evaluation": record(EVALUATORS, bound.config)["name"]},
    )


def _check_names(space: SearchSpace, metrics: Iterable[str], derived: Sequence[str] = ()) -> None:
    """Raises ConfigError for names of genes or metrics that would make two columns of a run's tables one.

    `derived`: further columns that are written beside the metrics.
    """
    metrics = dict.fromkeys(metrics)
    taken = {*BOOKKEEPING, *(f"{name}_se" for name in (*metrics, *derived))}
    names = {"metric": (metrics, taken), "gene": (space.names, taken.union(derived))}
    for kind, (given, others) in names.items():
        for name in given:
            if name in others:
                raise ConfigError(
                    f"{kind} {name!r}: evaluations.csv has a column of its own with that name; rename the {kind}"
                )
    if shared := [name for name in space.names if name in metrics]:
        raise ConfigError(f"{shared[0]!r} is the name of a gene and of a metric; rename one of them")


@with_jax_defaults
def follow(net: SuperNet | SelfMeasuring, task: Task | None = None, evaluator: EvaluatorSetting = "auto") -> None:
    """Does this process's part of a search that the first of several processes makes; until that search is over.

    The processes are joined by `jax.distributed.initialize`, and have the same super-network, task and evaluator. Raises
    ConfigError where these do not fit.
    """
    if isinstance(net, SuperNet) and task is not None:
        task.check(net)
        processes.follow(settings("evaluator", EVALUATORS, evaluator).bind(net, task))


def _halving(
    config: EvaluatorConfig, bound: PopulationEvaluator, net: SuperNet, task: Task, costs: Mapping[str, CostTable]
) -> Halving:
    cheaper, compared = task.cheaper(), _compared_by(task, costs)
    if cheaper is None or isinstance(bound, LeadingEvaluator):  # Other processes know one evaluator only.
        return Halving(bound, compared)
    first, by_first = replace(config, first_examples=0).bind(net, cheaper), _compared_by(cheaper, costs)
    return Halving(bound, compared, lambda archs: by_first(archs, measure(first, archs)))


def _compared_by(task: Task, costs: Mapping[str, CostTable]) -> ComparedValues:
    """Halving compares by the task's first metric and exact multiply-accumulates, whatever the objectives are: its values
    must not depend on a search's."""
    first = task.objectives[0]
    return lambda archs, found: np.stack([first.sign * found[first.name], costs["macs"].exact(archs)], axis=1)


def _costs_as_scores(costs: Mapping[str, CostTable]) -> dict[str, Score]:
    """Costs as proxies: the larger, the better a network may be."""
    return {name: table.exact for name, table in costs.items()}


def _cost_ranges(costs: Mapping[str, CostTable]) -> dict[str, tuple[float, float]]:
    return {name: (0.0, float(table.maximum())) for name, table in costs.items()}
