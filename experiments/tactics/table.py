"""Prints the tables of docs/results.md from the files in results/: complete tables of networks, and warm starts.

    cd experiments/tactics && NASJAX_DATA=... python table.py

Values are medians over the seeds in each file; a dash where the median run did not reach the target.
"""

from pathlib import Path

import numpy as np
import problems
from anytime import joined

RESULTS = Path(__file__).parent / "results"
EHVI, COLD = (
    "nasjax:ehvi",
    {"linas": "LINAS", "nsga2_20": "NSGA-II", "optuna_tpe": "TPE", "qnehvi": "qNEHVI", "random": "random"},
)
CHECKPOINTS = (30, 50, 100, 200, 300, 500)


def after(seeds, number):
    """Returns the hypervolume of every seed after `number` validations."""
    return [volumes[numbers == number][0] for numbers, volumes, _ in seeds.values() if number in numbers]


def needed(seeds, wanted):
    """Returns the validations of every seed to a hypervolume of `wanted`, infinity if it was not reached."""
    return [numbers[volumes >= wanted].min(initial=np.inf) for numbers, volumes, _ in seeds.values()]


def middle(values, digits=0):
    """Formats the median (without interpolation if values are infinite); a dash if it is infinite or there is none."""
    found = np.quantile(values, 0.5, method="linear" if np.isfinite(values).all() else "higher") if len(values) else np.inf
    return f"{found:.{digits}f}" if np.isfinite(found) else "–"


def line(*cells):
    print("|", " | ".join(map(str, cells)), "|")


def cold(runs):
    """Prints the validations to 99 % of the true front's hypervolume, then the lead of `ehvi` over the best rival."""
    names = [name for method, name in runs if method == EHVI and not name.startswith("surrogate")]
    line("to 99 %", "`ehvi` [quartiles]", "seeds", *COLD.values())
    line(*["---"] * (3 + len(COLD)))
    for name in names:
        wanted = 0.99 * problems.create(name).best
        own = needed(runs[EHVI, name], wanted)
        low, high = (np.quantile(own, share, method="higher") for share in (0.25, 0.75))
        others = [middle(needed(runs.get((method, name), {}), wanted)) for method in COLD]
        spread = f"[{low:.0f}, {high:.0f}]".replace("inf", "–")
        line(name.removeprefix("nb201:"), f"{middle(own)} {spread}", len(own), *others)
    print()
    line("median of `ehvi`, % (less the best rival's)", *CHECKPOINTS)
    line(*["---"] * (1 + len(CHECKPOINTS)))
    for name in names:
        unit, cells = problems.create(name).best / 100, []
        for number in CHECKPOINTS:
            rivals = [np.median(found) for method in COLD if (found := after(runs.get((method, name), {}), number))]
            own = after(runs[EHVI, name], number)
            ahead = (np.median(own) - max(rivals)) / unit if own else 0
            cells.append(f"{np.median(own) / unit:.2f} ({ahead:+.2f})" if own else "")
        line(name.removeprefix("nb201:"), *cells)


def warm(runs):
    """Prints the validations to 99 % after a warm start from another device, and after a cold start of the same seeds."""
    line(
        "from",
        "to",
        "correlation of latencies",
        "seeds",
        "warm",
        "cold",
        "after 50: warm",
        "cold",
        "after 100: warm",
        "cold",
    )
    line(*["---"] * 10)
    for (method, name), seeds in runs.items():
        if "warm=" not in method:
            continue
        earlier, wanted = method.partition("warm=")[2], 0.99 * problems.create(name).best
        alike = {seed: run for seed, run in runs.get((EHVI, name), {}).items() if seed in seeds}
        latencies = [
            problems.create(each).true(problems.create(each).space.all_architectures())[:, 1] for each in (earlier, name)
        ]
        cells = [middle(np.array(after(which, number)) / problems.create(name).best * 100, 2)
                 for number in (50, 100) for which in (seeds, alike)]  # fmt: skip
        line(earlier.rpartition(":")[2], name.rpartition(":")[2], f"{np.corrcoef(latencies)[0, 1]:.2f}", len(seeds),
             middle(needed(seeds, wanted)), middle(needed(alike, wanted)), *cells)  # fmt: skip


def main():
    runs = joined(
        [RESULTS / f"{name}.csv" for name in ("ehvi_tables", "linas_tables", "optuna", "pymoo", "qnehvi", "random", "warm")]
    )
    cold(runs)
    print()
    warm(runs)


if __name__ == "__main__":
    main()
