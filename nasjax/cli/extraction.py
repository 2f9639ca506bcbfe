"""`nasjax extract`: which networks its words mean, and the table that it prints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nasjax.cli.commands import _advance, _bar, _prepare_jax, profiled
from nasjax.cli.complete import OWN
from nasjax.cli.compose import configuration, rewritten
from nasjax.deploy.from_run import Handed, Wanted, add_exports, by_hand, chosen, hand_over, ready, taken_up
from nasjax.errors import ConfigError
from nasjax.export import kind
from nasjax.report.formatting import format_number
from nasjax.report.terminal import text_table
from nasjax.runs.folder import read_settings
from nasjax.supernets import SuperNet

EXTRACT = OWN["extract"]
"""What `nasjax extract` takes beside settings."""


def extract_networks(overrides: Sequence[str]) -> int:
    """Hands networks over, and prints what became of them."""
    own = {key: value for key, _, value in (word.partition("=") for word in overrides) if key in EXTRACT}
    words = rewritten([word for word in overrides if word.partition("=")[0] not in EXTRACT])
    run = Path(own["run"]) if own.get("run") else None
    _check_extract(own, words)
    exports = [f".{name.strip()}" for name in own.get("export", "").strip("[]").split(",") if name.strip()]
    for suffix in exports:
        kind(suffix)
    if "subnet" in own:
        return _export_again(Path(own["subnet"]), own, words, exports)
    hand = "arch" in own or "archs" in own
    network = int(own["network"]) if "network" in own else None
    wanted = [] if hand or run is None else chosen(run, own.get("select"), network)
    config = configuration("extract", words) if run is None else read_settings(run)
    single = "archs" not in own and own.get("select") != "all"

    def folders(networks: list[Wanted]) -> list[Path]:
        out = Path(own["out"]) if "out" in own else Path(run or ".") / "subnets"
        if single and "out" in own:
            return [out]
        return [out / str(one.index) for one in networks]

    def check_folders(networks: list[Wanted]) -> None:  # Before what takes long.
        for target in folders(networks):
            if target.exists() and "out" in own:
                raise ConfigError(f"out={own['out']}: {target} exists already; name another folder, or remove it")
            if target.exists():
                raise ConfigError(f"{target} exists already, extracted before: say out=FOLDER, or remove it")

    check_folders(wanted)
    _prepare_jax()
    subject = ready(config, run)
    if hand:
        wanted = by_hand(subject.net.space, own.get("arch"), Path(own["archs"]) if "archs" in own else None)
        check_folders(wanted)
        if config.get("hardware") is not None:  # Before anything else runs here.
            wanted = _timed(subject.net, config["hardware"], wanted)
    batch = int(own["batch"]) if "batch" in own else None
    total = len(wanted)
    with _bar("networks", subject.task.objectives[0].name, total) as (bar, line):

        def progress(done: int, handed: Handed) -> None:
            if total > 1:
                _advance(bar, line, done, total, handed.after)

        found = hand_over(subject, wanted, folders(wanted), exports, batch, progress)
    for handed in found:
        choices = ", ".join(f"{name}={value}" for name, value in handed.extracted.choices.items())
        print(f"Network {handed.wanted.index}: {choices}")
    worst = max(handed.extracted.difference for handed in found)
    images = found[0].extracted.examples
    answers = "It answers" if total == 1 else "They answer"
    print(f"{answers} as in the super-network: logits differ by at most {worst:.1e} on {images} pictures.")
    Console().print(text_table(_rows(found)))
    place = found[0].folder
    files = ", ".join(sorted(file.name for file in place.iterdir()))
    print(f"Written to {place if total == 1 else place.parent} ({files}), each file loaded again and compared. To load:\n")
    print(f'    import nasjax\n    net = nasjax.load("{place}")\n    logits = net(images)')
    return 0


def _timed(net: SuperNet, hardware: Mapping[str, Any], wanted: Sequence[Wanted]) -> list[Wanted]:
    """The same networks with what a latency model of the hardware says of them, and what is measured there."""
    # A run's own settings say more: what it was timed with.
    made = profiled(net, {key: value for key, value in hardware.items() if key != "context"})
    archs = np.array([one.arch for one in wanted], np.int32)
    predicted, measured = made.model.exact(archs), made.measure(archs)
    if made.timer is not None:
        made.timer.close()
    found = []
    for one, estimate, value in zip(wanted, predicted.tolist(), measured.tolist(), strict=True):
        known = {"latency_predicted": estimate, "latency_measured": value}
        found.append(replace(one, metrics=known if np.isfinite(value) else {"latency": estimate}))
    return found


def _export_again(folder: Path, own: dict[str, str], words: list[str], exports: list[str]) -> int:
    """Exports a network that was extracted or trained on: into its own folder, or another that then has all of it."""
    config = configuration("extract", words)
    record = folder / "record.json"
    if record.is_file() and not any(word.startswith("task") for word in words):
        config["task"] = json.loads(record.read_text())["settings"]["task"]
    out = Path(own["out"]) if "out" in own else folder
    if out != folder and out.exists():
        raise ConfigError(f"out={out} exists already; name another folder, or remove it")
    _prepare_jax()
    extracted, accuracy = taken_up(folder, config)
    batch = int(own["batch"]) if "batch" in own else None
    if out == folder:
        written = add_exports(extracted, folder, exports, batch)
    else:
        written = sorted(extracted.save(out, exports, batch).iterdir())
    choices = ", ".join(f"{name}={value}" for name, value in extracted.choices.items())
    print(f"Network {folder}: {choices}; accuracy {accuracy:.2f} on the validation pictures")
    files = ", ".join(file.name for file in written)
    print(f"Written to {out} ({files}), each file loaded again and compared on {extracted.examples} pictures.")
    return 0


def _check_extract(own: dict[str, str], words: list[str]) -> None:
    """Raises ConfigError for words that do not go together."""
    _check_numbers(own)
    ways = [key for key in ("network", "select", "arch", "archs") if key in own]
    if "subnet" in own:
        which = ["supernet"] * any(word.startswith("supernet") for word in words)
        if said := [key for key in ("run", *ways) if key in own] + which:
            raise ConfigError(f"subnet={own['subnet']} says which network: leave {said[0]}= out")
        if not own.get("export"):
            raise ConfigError(
                f"subnet={own['subnet']} is extracted already: say what for, export=stablehlo,onnx,pth,safetensors"
            )
        return
    if own.get("run") and (Path(own["run"]) / "network.safetensors").is_file():
        raise ConfigError(f"run={own['run']} is a network, not a search: say subnet={own['run']}")
    if len(ways) > 1:
        raise ConfigError(f"{ways[0]}= and {ways[1]}= both say which network: leave one out")
    if own.get("run") and words:
        raise ConfigError(
            f"nasjax extract takes run=FOLDER and {', '.join(EXTRACT[1:-1])}; run= says the rest, not {words[0]}"
        )
    if not own.get("run") and not set(ways) & {"arch", "archs"}:
        raise ConfigError("nasjax extract takes run=FOLDER, or settings and arch=GENE=OPTION,… or archs=FILE.csv")
    if set(ways) & {"arch", "archs"} and "out" not in own:
        raise ConfigError(f"{ways[0]}={own[ways[0]]} is no network of a run: name its folder, out=FOLDER")


def _check_numbers(own: dict[str, str]) -> None:
    """Raises ConfigError for an index or a number of pictures that is none."""
    for key, least in (("network", 0), ("batch", 1)):
        if key in own and not (own[key].isdecimal() and int(own[key]) >= least):
            what = "an index of evaluations.csv" if key == "network" else "a number of pictures"
            raise ConfigError(f"{key}={own[key]} is not {what}")


def _rows(found: Sequence[Handed]) -> list[list[str]]:
    """Header and a row a network; – for what is not known."""
    metric = found[0].metric
    # Of a recorded device a run has one latency: what is recorded, where it is, else what is predicted.
    told = {name for handed in found for name in handed.wanted.metrics}
    first = "predicted\nor recorded" if told & {"latency", "latency_measured"} == {"latency"} else "predicted"
    head = ["index", f"latency (ms)\n{first}", "latency (ms)\nmeasured"]
    head += [f"{metric}\nbefore", f"{metric}\nafter", "weights\n(MB)"]
    rows = []
    for handed in found:
        known = handed.wanted.metrics
        # Where a device measures, `latency` is what it measured; else it is a table's or a predictor's.
        predicted = known.get("latency_predicted" if "latency_measured" in known else "latency")
        times = ["–" if value is None else format_number(value) for value in (predicted, known.get("latency_measured"))]
        quality = [f"{value:.2f}" for value in (handed.before, handed.after)]
        rows.append([str(handed.wanted.index), *times, *quality, f"{handed.size / 1e6:.3g}"])
    return [head, *rows]
