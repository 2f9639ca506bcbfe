"""Training methods compared: what a search finds in each super-network, its ends, and how it ranks its sub-networks.

    nasjax train -m trainer=sandwich,single_path,progressive,attentive,alphanet seed=0,1,2 trainer.epochs=40 \\
        trainer.watch=false hydra.sweep.dir=multirun/ablation
    python experiments/training/ablation.py multirun/ablation experiments/training/results/digits.csv

Of every training in the folder: test accuracies of the largest and the smallest sub-network; the hypervolume on test images
of the front of a search (default tactic, accuracy_top1 and macs, as many validations for all; reference: 0 % and the largest
macs, as a share of the box to 100 % and 0 macs); and Kendall's tau of validation accuracies of 20 random sub-networks
to those of the same trained alone for 20 epochs, which is done once for each seed. Rows that are in the file are skipped.
The searches are in the folder `searches`, with a page that compares methods: comparison.html.
"""

import argparse
import csv
import json
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

import nasjax
from nasjax import supernets, tasks
from nasjax.evaluation import MaskedConfig, measure
from nasjax.pareto import hypervolume_exact
from nasjax.report.compare import write_comparison
from nasjax.report.terminal import text_table
from nasjax.training import SandwichConfig
from nasjax.training.ranking import drawn_archs, rank_correlation, train_alone

COLUMNS = ("trainer", "seed", "largest", "smallest", "hypervolume", "tau", "tau_error", "networks")
NETWORKS, EPOCHS, VALIDATIONS = 20, 20, 64
SEARCHES = "searches"
SCORED = MaskedConfig(batch=100, calibration_examples=300, chunk=20)


def alone(path, seed, task):
    """Architectures, and the validation accuracy of each trained alone; kept in a file."""
    fresh = supernets.create("digits", checkpoint=None, seed=seed)
    archs = drawn_archs(fresh, NETWORKS, jax.random.key(100 + seed))
    if not path.exists():
        trained = train_alone(SandwichConfig(), fresh, task, archs, jax.random.key(seed), EPOCHS)
        bound = SCORED.bind(fresh, task)
        values = []
        for i in range(NETWORKS):
            values.append(float(measure(bound.reweighted(trained(i)), archs[i : i + 1])["accuracy_top1"][0]))
            print(f"alone, seed {seed}: {i + 1}/{NETWORKS}, {values[-1]:.4g} %", flush=True)
        path.write_text("\n".join(f"{value:.6g}" for value in values) + "\n")
    return archs, np.array([float(line) for line in path.read_text().split()])


def row_of(folder, results):
    record = json.loads((folder / "record.json").read_text())
    seed, task = record["seed"], tasks.create("digits")
    net = supernets.create("digits", checkpoint=str(folder / "supernet.safetensors"))
    archs, accuracies = alone(results.parent / f"alone_{seed}.csv", seed, task)
    tau, error = rank_correlation(measure(SCORED.bind(net, task), archs)["accuracy_top1"], accuracies)
    front = nasjax.search(net, task, objectives=["accuracy_top1", "macs"], evaluations=VALIDATIONS, seed=seed,
                          run=folder.parent / SEARCHES / folder.name)  # fmt: skip
    largest = next(goal.reference for goal in front.objectives if goal.name == "macs")
    points = np.stack([-front.metrics["test_accuracy_top1"], front.metrics["macs"]], axis=1)
    volume = hypervolume_exact(points, np.array([0.0, largest])) / largest
    ends = {name: record["scores"][name]["test"] for name in ("largest", "smallest")}
    return {"trainer": record["settings"]["trainer"]["name"], "seed": seed, **ends, "hypervolume": round(volume, 3),
            "tau": round(tau, 3), "tau_error": round(error, 3), "networks": NETWORKS}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = []
    if arguments.results.exists():
        with arguments.results.open() as file:
            done = [(row["trainer"], int(row["seed"])) for row in csv.DictReader(file)]
    for path in sorted(arguments.folder.glob("*/record.json")):
        settings = json.loads(path.read_text())["settings"]
        if (settings["trainer"]["name"], settings["seed"]) in done:
            continue
        row = row_of(path.parent, arguments.results)
        with arguments.results.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)
    searches = arguments.folder / SEARCHES
    if searches.is_dir():
        page, table, _ = write_comparison([searches], searches)
        Console().print(text_table(table))
        print(page)


if __name__ == "__main__":
    main()
