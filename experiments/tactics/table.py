"""Prints tables of the files in results/: complete tables of networks by every yardstick, and warm starts.

    cd experiments/tactics && NASJAX_DATA=... python table.py [RUNS.csv …] [--method nasjax:ehvi] [--problems "nb201:*"]

For each problem: how many seeds each method has; its median [quartiles] after CHECKPOINTS validations; the validations to 95
and 99 % of the true front's hypervolume (a dash where the median run did not reach it); and the difference of `--method` to
the best rival's median. Differences of 30 and more seeds mean more than those of three: both counts are given. Older results
hold hypervolumes with the loose reference alone (runs.py) and are left out of the other tables.
"""

import argparse
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import problems
import runs
import yardstick
from anytime import at, quartiles

RESULTS = Path(__file__).parent / "results"
CHECKPOINTS = (30, 50, 100, 200, 300, 500)
TARGETS = (95, 99)
YARDSTICKS = {
    "loose": "hypervolume, loose reference, %",
    "tight": "hypervolume, tight reference, %",
    "epsilon": "additive epsilon indicator, % (less is better)",
}
OWN = "nasjax:"


def line(*cells):
    print("|", " | ".join(map(str, cells)), "|")


def middle(values, digits=0):
    """Formats the median (without interpolation if values are infinite); a dash if it is infinite or there is none."""
    return quartiles(values, digits).split(" [")[0] if len(values) else "–"


def compare(found, name, method, by):
    """Prints a line for each method on a problem, then the lead of `method` over the best rival in every column."""
    seeds = {
        key: [known[by] for known in curves.values() if by in known] for (key, at_), curves in found.items() if at_ == name
    }
    seeds = {key: curves for key, curves in seeds.items() if curves}
    if not seeds:
        return
    targets = TARGETS if by != "epsilon" else ()
    print(f"\n{name}: {YARDSTICKS[by]}\n")
    line("method", "seeds", *CHECKPOINTS, *(f"to {target} %" for target in targets))
    line(*["---"] * (2 + len(CHECKPOINTS) + len(targets)))
    needed = {key: {target: [yardstick.first(*curve, target) for curve in curves] for target in targets}
              for key, curves in seeds.items()}  # fmt: skip
    for key, curves in seeds.items():
        scores = [at(curves, number) for number in CHECKPOINTS]
        line(f"`{key}`", len(curves), *(quartiles(values, 2) if values else "" for values in scores),
             *(quartiles(np.array(needed[key][target]), 0) for target in targets))  # fmt: skip
    if method not in seeds:
        return
    rivals = [key for key in seeds if not key.startswith(OWN)]
    cells = []
    for number in CHECKPOINTS:
        own = at(seeds[method], number)
        others = {key: np.median(values) for key in rivals if (values := at(seeds[key], number))}
        cells.append(lead(np.median(own), others, seeds, by) if own and others else "")
    for target in targets:
        others = {key: np.median(needed[key][target]) for key in rivals}
        best = min(others, key=others.get, default=None)
        known = best is not None and np.isfinite(others[best])
        own = middle(np.array(needed[method][target]))
        cells.append(f"{own} : {others[best]:.0f} ({best}, {len(seeds[best])} seeds)" if known else f"{own} : –")
    line(f"`{method}` : best of {len(rivals)} rivals", len(seeds[method]), *cells)


def lead(own, others, seeds, by):
    """Formats the difference to the best rival's median, the rival and the number of its seeds."""
    best = (min if by == "epsilon" else max)(others, key=others.get)
    return f"{own - others[best]:+.2f} ({best}, {len(seeds[best])} seeds)"


def warm(found):
    """Prints the validations to 99 % after a warm start from another device, and after a cold start of the same seeds."""
    print("\nwarm starts, loose reference\n")
    line("from", "to", "correlation of latencies", "seeds", "warm", "cold",
         "after 50: warm", "cold", "after 100: warm", "cold")  # fmt: skip
    line(*["---"] * 10)
    for (method, name), seeds in found.items():
        if ",warm=" not in method:
            continue
        words = method.split(",")
        earlier = next(word.removeprefix("warm=") for word in words if word.startswith("warm="))
        cold = found.get((",".join(word for word in words if not word.startswith("warm=")), name), {})
        pair = [[curves[seed]["loose"] for seed in seeds if seed in curves] for curves in (seeds, cold)]
        latencies = [
            problems.create(each).true(problems.create(each).space.all_architectures())[:, 1] for each in (earlier, name)
        ]
        line(earlier.rpartition(":")[2], name.rpartition(":")[2], f"{np.corrcoef(latencies)[0, 1]:.2f}", len(seeds),
             *(middle(np.array([yardstick.first(*curve, 99) for curve in curves])) for curves in pair),
             *(middle(at(curves, number), 2) for number in (50, 100) for curves in pair))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="instead of all files in results/")
    parser.add_argument("--method", default="nasjax:ehvi", help="compared with the rivals")
    parser.add_argument("--problems", default="*", help="* stands for any letters")
    arguments = parser.parse_args()
    found = runs.joined(arguments.runs or sorted(RESULTS.glob("*.csv")))
    names = [name for name in problems.NAMES if fnmatch(name, arguments.problems)]
    for by in YARDSTICKS:
        for name in names:
            compare(found, name, arguments.method, by)
    warm({key: curves for key, curves in found.items() if key[1] in names})


if __name__ == "__main__":
    main()
