"""The result of a search: the networks of its Pareto front, to be looked at, selected, extracted and stored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from nasjax.deploy.subnet import Extracted
from nasjax.errors import ConfigError, naming_damage
from nasjax.evaluation import EvaluatorSetting
from nasjax.host import new_place, parse_json, read_text, write_text
from nasjax.jax_defaults import with_jax_defaults
from nasjax.objectives import Objective, parse_constraint
from nasjax.pareto import knee
from nasjax.program_cache import cache_programs
from nasjax.runs.archive import digest
from nasjax.runs.folder import plain_data
from nasjax.searches.history import History
from nasjax.searches.problem import SearchProblem, SelfMeasuring, search_problem
from nasjax.space import Gene, Option, SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tasks import Task
from nasjax.version import __version__
from nasjax.words import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Chosen:
    """One network of a front.

    `index` is its position among the run's evaluations, `arch` its option indices, `choices` its options by gene name;
    `metrics` are in natural signs and units.
    """

    index: int
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    metrics: Mapping[str, float]
    problem: SearchProblem | None = field(repr=False)

    @with_jax_defaults
    def extract(self) -> Extracted:
        """The sub-network as a network without genes, re-calibrated and verified.

        Raises ConfigError where a table or a function was searched: these have no networks; and for a front that was loaded
        without its super-network and task.
        """
        if self.problem is None:
            raise ConfigError("this front was loaded from a file: nasjax.Front.load(file, net, task) can extract networks")
        if self.problem.extract is None:
            raise ConfigError("a table was searched: it has no networks to extract")
        cache_programs()
        return self.problem.extract(self.arch)


SHOWN = 20
"""The most networks that a notebook shows of a front."""


@dataclass(frozen=True, eq=False, repr=False)
class Front:
    """The Pareto front of a search: the networks that no other dominates, the best in the first objective first.

    `archs` has one row of option indices a network; `metrics` one value a network by name, in natural signs and units,
    `test_…` for those on test data, which the search does not use. `indices` are the networks' positions among the run's
    evaluations, `folder` is the run folder. The hypervolume's reference point is that of the objectives. `evaluations` has
    all networks that were evaluated, by the columns of `evaluations.csv`.
    """

    space: SearchSpace
    objectives: Sequence[Objective]
    indices: Int[np.ndarray, " networks"]
    archs: Int[np.ndarray, "networks genes"]
    metrics: Mapping[str, Float[np.ndarray, " networks"]]
    hypervolume: float
    folder: Path | None
    problem: SearchProblem | None
    evaluations: Mapping[str, Sequence[Any]]

    def __repr__(self) -> str:
        """One line: how many networks, and the range of every objective."""
        measured = plural(len(self.evaluations.get("index", ())), "evaluation")
        if not len(self):
            return f"Front without networks, of {measured}"
        ranges = []
        for goal in self.objectives:
            values, unit = self.metrics[goal.name], f" {goal.unit}" * bool(goal.unit)
            ranges.append(f"{goal.name} {values.min():.5g} to {values.max():.5g}{unit}")
        return f"Front of {plural(len(self), 'network')}, of {measured}: {', '.join(ranges)}"

    def __len__(self) -> int:
        return len(self.archs)

    def __getitem__(self, i: int) -> Chosen:
        arch = tuple(map(int, self.archs[i]))
        metrics = {name: float(column[i]) for name, column in self.metrics.items()}
        return Chosen(int(self.indices[i]), arch, self.space.decode(self.archs[i]), metrics, self.problem)

    def select(self, *constraints: str) -> Chosen:
        """The network that is best in the first objective among those that keep all constraints: `select("macs<=2e5")`.

        Constraints may name genes: they hold where a gene is switched off. Raises ConfigError for a constraint that cannot
        be parsed, or that no network of the front keeps.
        """
        kept = np.ones(len(self), bool)
        for constraint in constraints:
            limit = parse_constraint(constraint, [*self.metrics, *self.space.names])
            genes = [choices.get(limit.name, limit.bound) for choices in self.networks()]
            kept &= limit.holds(self.metrics if limit.name in self.metrics else {limit.name: np.array(genes)})
        if not kept.any():
            ranges = ", ".join(
                f"{goal.name} {self.metrics[goal.name].min():.6g} to {self.metrics[goal.name].max():.6g}"
                for goal in self.objectives
                if len(self)
            )
            raise ConfigError(f"no network of the front keeps {' and '.join(constraints)}; it has {ranges or 'none'}")
        return self[int(np.flatnonzero(kept)[0])]

    def knee(self) -> Chosen:
        """The network of the best trade-off: beyond it a gain in one objective costs much of another (`pareto.knee`).

        Raises ConfigError for an empty front.
        """
        if not len(self):
            raise ConfigError("the front has no network: every evaluation failed, or broke a constraint")
        values = [goal.sign * np.asarray(self.metrics[goal.name], np.float64) for goal in self.objectives]
        return self[knee(np.stack(values, axis=1))]

    def networks(self) -> list[dict[str, Option]]:
        """The chosen option of every gene by name, for every network."""
        return [self.space.decode(arch) for arch in self.archs]

    def to_pandas(self, evaluations: bool = False) -> "DataFrame":
        """The networks of the front as a pandas DataFrame, by `index`: a column for each gene and each metric.

        With `evaluations` all networks that were evaluated, as in `evaluations.csv`. Cells of genes that are switched off
        are missing. Raises ConfigError without pandas.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise ConfigError("to_pandas needs pandas: pip install pandas") from None
        columns = self.evaluations if evaluations else self._columns()
        genes = {
            name: [None if value == "" else value for value in column] if name in self.space.names else column
            for name, column in columns.items()
        }
        return DataFrame(genes).set_index("index")

    def _columns(self) -> dict[str, Sequence[Any]]:
        """The front as columns: the index, the options of genes, metrics."""
        options = dict(zip(self.space.names, map(list, zip(*self.space.options_of(self.archs), strict=True)), strict=False))
        return {"index": self.indices.tolist(), **options, **{name: self.metrics[name].tolist() for name in self.metrics}}

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """The front as a header and rows: the index, the options of genes ("" where switched off), metrics."""
        columns = self._columns()
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def plot(self) -> "Figure":
        """The first two objectives of all evaluated networks as a matplotlib figure, the front as a staircase.

        Of three or more objectives the front is points without a line. Of one: its values in the order of evaluation, with
        the best. Notebooks show the figure as a picture.
        """
        from nasjax.searches.front_figure import front_figure  # Matplotlib takes longer to import than all of nasjax.

        return front_figure(self.objectives, self.evaluations, self._columns())

    def _repr_html_(self) -> str:
        """The front as a table, for notebooks."""
        columns = self._columns()
        names = ["index", *(name for name in self.metrics if name.removeprefix("test_") in self._goals())]
        rows = list(zip(*(columns[name] for name in names), strict=True))
        heads = "".join(f"<th>{escape(name)}</th>" for name in names)
        lines = ("".join(f"<td>{value:.6g}</td>" for value in row) for row in rows[:SHOWN])
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        more = f"<p>{len(rows) - SHOWN} more</p>" if len(rows) > SHOWN else ""
        return f"<p>{escape(repr(self))}</p><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{more}"

    def _goals(self) -> list[str]:
        return [goal.name for goal in self.objectives]

    def save(self, file: str | Path, overwrite: bool = False) -> Path:
        """Writes the front and all evaluations to a JSON file, which `load` reads.

        Raises ConfigError for a file that exists, unless `overwrite`.
        """
        target = Path(file)
        if not (overwrite and target.is_file()):
            new_place(str(target), target)
        content = {
            "nasjax": __version__,
            "genes": [asdict(gene) for gene in self.space.genes],
            "objectives": [asdict(goal) for goal in self.objectives],
            "indices": self.indices.tolist(),
            "archs": self.archs.tolist(),
            "metrics": {name: column.tolist() for name, column in self.metrics.items()},
            "hypervolume": self.hypervolume,
            "folder": self.folder and str(self.folder),
            "evaluations": dict(self.evaluations),
            "evaluator": self.problem and self.problem.origin.get("evaluator"),
            "identity": self.problem and digest(self.problem.identity),
        }
        write_text(target, json.dumps(plain_data(content)) + "\n")
        return target

    @staticmethod
    def load(
        file: str | Path,
        net: SuperNet | SelfMeasuring | None = None,
        task: Task | None = None,
        evaluator: EvaluatorSetting | None = None,
    ) -> "Front":
        """The front that `save` has written. With its super-network and task its networks can be extracted.

        `evaluator`: that of the search (None). Raises ConfigError for a file that is missing or damaged, and for a
        super-network, weights or a task that are not those of the search.
        """
        text = read_text(file)
        with naming_damage(file, "it is not a file that Front.save has written"):
            stored = parse_json(text)
            evaluator = evaluator or stored["evaluator"] or "masked"
            identity = stored["identity"]
            genes = [
                Gene(**{**gene, "options": tuple(gene["options"]), "needs": gene["needs"] and tuple(gene["needs"])})
                for gene in stored["genes"]
            ]
            space = SearchSpace(tuple(genes))
            front = Front(
                space=space,
                objectives=tuple(Objective(**{**goal, "range": tuple(goal["range"])}) for goal in stored["objectives"]),
                indices=np.array(stored["indices"], int),
                archs=np.array(stored["archs"], np.int32).reshape(-1, len(genes)),
                metrics={name: np.array(column) for name, column in stored["metrics"].items()},
                hypervolume=stored["hypervolume"],
                folder=stored["folder"] and Path(stored["folder"]),
                problem=None,
                evaluations=stored["evaluations"],
            )
        if net is None:
            return front
        if net.space != space:
            raise ConfigError(f"{file} is of another super-network: its genes differ")
        problem = search_problem(net, task, evaluator)
        if identity not in (None, digest(problem.identity)):
            raise ConfigError(f"{file} was measured with other weights, data or settings of the evaluator than these")
        return replace(front, problem=problem)


def front_of(
    history: History, best: Int[np.ndarray, " networks"], test: Mapping[str, np.ndarray], folder: Path | None
) -> Front:
    """The front whose networks are the rows `best` of the history, with their metrics and those on test data."""
    columns = history.metrics | history.predicted_latency | history.standard_errors
    header, rows = history.table()
    return Front(
        space=history.problem.space,
        objectives=history.goals.objectives,
        indices=np.array([history.rows[i].position for i in best], int),
        archs=history.archs[best],
        metrics={name: column[best] for name, column in columns.items()} | dict(test),
        hypervolume=history.hypervolume,
        folder=folder,
        problem=history.problem,
        evaluations={name: [row[i] for row in rows] for i, name in enumerate(header)},
    )
