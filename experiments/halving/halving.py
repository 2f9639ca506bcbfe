"""What successive halving does to the ranking of the shipped digits super-network. See README.md beside this."""

import csv
import sys
from pathlib import Path

import jax
import numpy as np
from scipy.stats import kendalltau

from nasjax import supernets, tasks
from nasjax.evaluation import measure
from nasjax.objectives import parse_objectives
from nasjax.pareto import hypervolume_exact, non_dominated_exact
from nasjax.searches.problem import search_problem

NETWORKS, COMPANY, SEEDS = 96, 16, 5
FIRST = (50, 100, 200, 300)
COLUMNS = ("first_examples", "seed", "scored", "tau", "front", "front_kept", "hypervolume")


def main(file: Path) -> None:
    """Appends a row for every first round and seed that the file does not hold."""
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "nasjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    known = {(row["first_examples"], row["seed"]) for row in csv.DictReader(file.open())} if file.is_file() else set()
    net, task = supernets.create("digits"), tasks.create("digits")
    with file.open("a", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        if not known:
            writer.writerow(COLUMNS)
        for seed in range(SEEDS):
            left = [first for first in FIRST if (str(first), str(seed)) not in known]
            if not left:
                continue
            archs = np.unique(np.asarray(net.space.sample(jax.random.key(seed), 2 * NETWORKS)), axis=0)
            archs = np.random.default_rng(seed).permutation(archs)[:NETWORKS]
            wanted = values(net, task, archs, 0, seed)[0]
            for first in left:
                found, share = values(net, task, archs, first, seed)
                writer.writerow([first, seed, *compared(net, task, found, wanted, share)])
                out.flush()


def values(net, task, archs, first, seed):
    """Accuracy and macs of every network, minimised, and the share of images that were scored."""
    settings = {"name": "masked", "chunk": COMPANY, "seed": seed, "first_examples": first}
    problem = search_problem(net, task, settings)
    found = measure(problem.evaluator, archs)
    columns = np.stack([-found["accuracy_top1"], problem.compute(archs)["macs"]], axis=1).astype(np.float64)
    return columns, problem.evaluator.scored / problem.evaluator.asked if first else 1.0


def compared(net, task, found, wanted, share):
    """A row of the table: `wanted` are the values on all images."""
    problem = search_problem(net, task, "masked")
    goals = parse_objectives(("accuracy_top1", "macs"), problem.measurable, {})
    reference = np.array([goal.sign * goal.reference for goal in goals])
    true, chosen = non_dominated_exact(wanted), non_dominated_exact(found)
    volume = hypervolume_exact(wanted[chosen], reference) / hypervolume_exact(wanted[true], reference)
    tau = kendalltau(found[:, 0], wanted[:, 0]).statistic
    kept = (true & chosen).sum() / true.sum()
    return [f"{share:.3f}", f"{tau:.3f}", int(true.sum()), f"{kept:.3f}", f"{100 * volume:.2f}"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
