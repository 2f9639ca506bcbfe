"""CPU time and memory of a search by its planned budget: the default tactic on a table.

    taskset -c 0 python benchmarks/budget.py [EVALUATIONS ...]

A made-up table of 42^3 networks with noise; one process a budget. CPU seconds of the whole search, imports apart, with an
empty and then with a filled compilation cache; CPU seconds per 100 evaluations of the last 100 (of the second half of small
budgets); peak memory of the process. Beyond 3,000, all but the last 110 evaluations are random networks, told at once.
"""

import csv
import itertools
import math
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from nasjax import supernets
from nasjax.algorithms import NSGA2
from nasjax.objectives import parse_goals
from nasjax.predictors import GaussianProcess
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.tactics import Ehvi

BUDGETS = (64, 128, 500, 1000, 3000, 20_000)
MEASURED_IN_FULL = 3000


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_table(path: Path) -> None:
    """Accuracy grows with cost, with waves and noise."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["a", "b", "c", "acc", "cost"])
        for a, b, c in itertools.product(range(42), repeat=3):
            cost = a + 1.5 * b + 0.7 * c + 0.02 * a * b
            waves = 3 * math.sin(a / 5) * math.cos(b / 4) + math.sin(c) + 0.2 * rng.normal()
            rows.writerow(
                [a, b, c, round(60 + 20 * math.tanh(cost / 80) + waves, 4), round(cost + 5 * math.sin(a + c) ** 2, 4)]
            )


def measure(table: str, evaluations: int) -> None:
    """One search in this process; prints CPU seconds in all, those of the last 100 evaluations, and megabytes."""
    net = supernets.create("tabular", table=table, genes=("a", "b", "c"))
    problem = search_problem(net, None)
    goals = parse_goals(("max:acc", "min:cost"), (), problem.measurable)
    tactic = Ehvi()
    began = cpu_seconds()
    state = tactic.init(jax.random.key(0), tactic_problem(problem, goals, NSGA2(), GaussianProcess(), evaluations))
    if evaluations > MEASURED_IN_FULL:
        archs = net.archs[np.random.default_rng(0).permutation(len(net.archs))[: evaluations - 110]]
        state = tactic.tell(state, archs, goals.minimised(net(archs)))
    last, before = began, 0
    while (done := len(state.archs)) < evaluations:
        if done <= max(evaluations - 100, evaluations // 2):
            last, before = cpu_seconds(), done
        archs, state = tactic.ask(state)
        archs = archs[: evaluations - done]
        state = tactic.tell(state, archs, goals.minimised(net(archs)))
    per_100 = (cpu_seconds() - last) / (evaluations - before) * 100
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{cpu_seconds() - began:.1f} {per_100:.2f} {memory:.0f}")


def main(budgets: list[int]) -> None:
    print(f"{'evaluations':>12}{'CPU s, cold':>13}{'CPU s, warm':>13}{'CPU s per 100':>15}{'MB':>7}")
    with tempfile.TemporaryDirectory() as folder:
        write_table(table := Path(folder, "table.csv"))
        for budget in budgets:
            cache = f"jax.config.update('jax_compilation_cache_dir', {str(Path(folder, str(budget)))!r})"
            code = (
                f"import jax; {cache}; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
                f"import budget; budget.measure({str(table)!r}, {budget})"
            )
            run = [sys.executable, "-c", code]
            cold, warm = (
                subprocess.run(run, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout.split()
                for _ in range(2)
            )
            print(f"{budget:12}{cold[0]:>13}{warm[0]:>13}{warm[1]:>15}{warm[2]:>7}", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(BUDGETS))
