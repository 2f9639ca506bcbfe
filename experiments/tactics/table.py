"""Prints tables of the files in results/: complete tables of networks by every yardstick, and warm starts.

    cd experiments/tactics && NASJAX_DATA=... python table.py [RUNS.csv …] [--method nasjax:ehvi] [--problems "nb201:*"]

For each yardstick: the validations of `--method` and of its rivals to 95 and 99 % of the true front's hypervolume, its
median after CHECKPOINTS validations and the difference to the best rival's. Then for each problem all methods, with
quartiles and the number of seeds, and in the last line the differences to the best rival, its name and seeds. A dash: the
median run did not reach it, or no run is so long. Older results hold hypervolumes with the loose reference alone (runs.py).
"""

import argparse
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import problems
import runs
import yardstick
from anytime import at, quantiles, quartiles

RESULTS = Path(__file__).parent / "results"
CHECKPOINTS = (30, 50, 100, 200, 300, 500)
TARGETS = (95, 99)
YARDSTICKS = {
    "loose": "hypervolume, loose reference, %",
    "tight": "hypervolume, tight reference, %",
    "epsilon": "additive epsilon indicator, % (less is better)",
}
OTHERS = ("bound.csv", problems.FRONTS.name)
"""Files in results/ that are not runs."""

OWN, WARM = "nasjax:", ",warm="


def line(*cells):
    print("|", " | ".join(map(str, cells)), "|")


def middle(values, digits=0):
    """Formats the median (without interpolation if values are infinite); a dash if it is infinite or there is none."""
    return quartiles(values, digits).split(" [")[0] if len(values) else "–"


def scores_of(found, name, by):
    """Returns {method: curves of all seeds} on a problem by one yardstick."""
    scores = {}
    for (method, problem), seeds in found.items():
        curves = [known[by] for known in seeds.values() if by in known]
        if problem == name and curves and WARM not in method:
            scores[method] = curves
    return scores


def needed(curves, target):
    return np.array([yardstick.first(*curve, target) for curve in curves])


def lead(scores, method, number, by):
    """Returns the difference of a method to the best rival's median after a number of validations, and that rival."""
    own = at(scores[method], number)
    rivals = {key: np.median(values) for key, curves in scores.items()
              if not key.startswith(OWN) and (values := at(curves, number))}  # fmt: skip
    if not own or not rivals:
        return None
    best = (min if by == "epsilon" else max)(rivals, key=rivals.get)
    return np.median(own) - rivals[best], best


def soonest(scores, target):
    """Returns the rival whose median run reaches the target first, and its validations."""
    rivals = {key: quantiles(needed(curves, target)) for key, curves in scores.items() if not key.startswith(OWN)}
    best = min(rivals, key=rivals.get, default="")
    return best, rivals.get(best, np.inf)


def summary(found, names, method, by):
    """Prints what `method` needs beside its rivals, then its median and its lead over the best rival, a problem a line."""
    scores = {name: scores_of(found, name, by) for name in names}
    scores = {name: each for name, each in scores.items() if method in each}
    rivals = sorted({key for each in scores.values() for key in each if not key.startswith(OWN)})
    if not scores:
        return
    for target in TARGETS if by != "epsilon" else ():
        print(f"\n{YARDSTICKS[by]}: validations to {target} %, medians (seeds)\n")
        line("", f"`{method}` [quartiles] (seeds)", *rivals)
        line(*["---"] * (2 + len(rivals)))
        for name, each in scores.items():
            others = [f"{middle(needed(each[key], target))} ({len(each[key])})" if key in each else "" for key in rivals]
            line(name, f"{quartiles(needed(each[method], target), 0)} ({len(each[method])})", *others)
    print(f"\n{YARDSTICKS[by]}: median of `{method}` (difference to the best rival's)\n")
    line("", "seeds", "rivals", *CHECKPOINTS)
    line(*["---"] * (3 + len(CHECKPOINTS)))
    for name, each in scores.items():
        cells = []
        for number in CHECKPOINTS:
            own, ahead = at(each[method], number), lead(each, method, number, by)
            cells.append(f"{middle(own, 2)} ({ahead[0]:+.2f})" if ahead else middle(own, 2))
        line(name, len(each[method]), sum(not key.startswith(OWN) for key in each), *cells)


def compare(found, name, method, by):
    """Prints a line for each method on a problem, then the lead of `method` over the best rival in every column."""
    scores = scores_of(found, name, by)
    if not scores:
        return
    targets = TARGETS if by != "epsilon" else ()
    print(f"\n{name}: {YARDSTICKS[by]}\n")
    line("method", "seeds", *CHECKPOINTS, *(f"to {target} %" for target in targets))
    line(*["---"] * (2 + len(CHECKPOINTS) + len(targets)))
    for key, curves in scores.items():
        after = [at(curves, number) for number in CHECKPOINTS]
        line(f"`{key}`", len(curves), *(quartiles(values, 2) if values else "" for values in after),
             *(quartiles(needed(curves, target), 0) for target in targets))  # fmt: skip
    if method in scores:
        leads = [lead(scores, method, number, by) for number in CHECKPOINTS]
        rivals = [soonest(scores, target) for target in targets]
        line(f"`{method}` – best rival", len(scores[method]),
             *(f"{ahead[0]:+.2f} ({ahead[1]}, {len(scores[ahead[1]])})" if ahead else "" for ahead in leads),
             *(f"{best}: {number:.0f} ({len(scores[best])})" if np.isfinite(number) else "–" for best, number in rivals)
             )  # fmt: skip


def warm(found):
    """Prints the validations to 99 % after a warm start from another device, and after a cold start of the same seeds."""
    print("\nwarm starts, loose reference\n")
    line("accuracy", "from", "to", "correlation of latencies", "seeds", "warm", "cold",
         "after 50: warm", "cold", "after 100: warm", "cold")  # fmt: skip
    line(*["---"] * 11)
    for (method, name), seeds in found.items():
        if WARM not in method:
            continue
        words = method.split(",")
        earlier = next(word.removeprefix("warm=") for word in words if word.startswith("warm="))
        cold = found.get((",".join(word for word in words if not word.startswith("warm=")), name), {})
        pair = [[curves[seed]["loose"] for seed in seeds if seed in curves] for curves in (seeds, cold)]
        latencies = [
            problems.create(each).true(problems.create(each).space.all_architectures())[:, 1] for each in (earlier, name)
        ]
        _, data, device = name.split(":")
        line(data, earlier.rpartition(":")[2], device, f"{np.corrcoef(latencies)[0, 1]:.2f}", len(seeds),
             *(middle(np.array([yardstick.first(*curve, 99) for curve in curves])) for curves in pair),
             *(middle(at(curves, number), 2) for number in (50, 100) for curves in pair))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="instead of all files in results/")
    parser.add_argument("--method", default="nasjax:ehvi", help="compared with the rivals")
    parser.add_argument("--problems", default="*", help="* stands for any letters")
    arguments = parser.parse_args()
    names = [name for name in problems.NAMES if fnmatch(name, arguments.problems)]
    files = arguments.runs or [path for path in sorted(RESULTS.glob("*.csv")) if path.name not in OTHERS]
    found = runs.joined(files, names)
    for by in YARDSTICKS:
        summary(found, names, arguments.method, by)
    for name in names:
        for by in YARDSTICKS:
            compare(found, name, arguments.method, by)
    warm(found)


if __name__ == "__main__":
    main()
