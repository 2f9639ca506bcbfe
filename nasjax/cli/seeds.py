"""`nasjax search seeds=NUMBER`: one search of a table for each of many seeds, and the page that compares them."""

import sys
from typing import Any

from rich.console import Console

from nasjax import supernets
from nasjax.cli.console import prepare_jax
from nasjax.errors import ConfigError
from nasjax.progress import ProgressBar
from nasjax.report.compare import write_comparison
from nasjax.report.terminal import text_table
from nasjax.searches.seeds import SeedSearches
from nasjax.searches.seeds_folder import write_seeds
from nasjax.words import plural

USED = (
    *("objectives", "constraints", "tactic", "algorithm", "predictor"),
    *("evaluations", "references", "warm_start", "proxies"),
)
"""The settings of searches with many seeds, beside the table."""

WITHOUT = ("hardware", "archive", "minutes", "space_reduction", "distributed", "tracker", "tactic_device")
"""Those of one search alone."""


def run_seeds(config: dict[str, Any], label: str, resume: str) -> bool:
    """Searches once for each of `seeds` seeds, shows progress, prints and writes the comparison; `label` as in `run_search`.

    Returns whether all are done, which is always. Raises ConfigError for invalid settings. Raises KeyboardInterrupt after
    Ctrl-C: seeds that are done are stored, and `resume`, a command, continues.
    """
    for key in WITHOUT:
        if config[key] is not None and config[key] != {"name": "none"}:
            raise ConfigError(f"seeds={config['seeds']} searches a table once a seed, without {key}=: leave one of both out")
    prepare_jax()
    net, number, done = supernets.create(seed=config["seed"], **config["supernet"]), config["seeds"], 0
    searches = SeedSearches.of(net, **{key: config[key] for key in USED})
    try:
        kind = f"seeds {config['tactic']['name']} {net.origin['name']}"
        with ProgressBar("seeds", "median hypervolume", number, label, kind) as bar:
            for now in write_seeds(searches, config["run"], config["seed"], number):
                done = now.done
                bar.update(done, now.planned, now.hypervolume)
    except KeyboardInterrupt:
        print(f"Stopping: {done} of {plural(number, 'seed')} are stored; {resume} resumes the search", file=sys.stderr)
        raise
    page, rows, _ = write_comparison([config["run"]], config["run"])
    if label:
        print(f"{label}: done, {plural(number, 'seed')}, {page}", flush=True)
    else:
        Console().print(text_table(rows))
        Console().print(f"Report: {page}", soft_wrap=True)
    return True
