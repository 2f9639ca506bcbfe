"""`nasjax extract`: sub-networks of a finished search, or given ones, each in a folder; exports of extracted networks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nasjax.cli.compose import configuration_of
from nasjax.cli.console import prepare_jax, profile_with_progress
from nasjax.cli.options import Arguments, whole_number
from nasjax.deploy.from_run import (
    Candidate,
    WrittenSubnet,
    add_exports,
    extract_and_write,
    from_choices,
    load_subnet,
    restore,
    select_networks,
)
from nasjax.errors import ConfigError, naming_damage
from nasjax.export import kind
from nasjax.host import new_place, parse_json, read_text
from nasjax.progress import ProgressBar
from nasjax.report.formatting import format_number
from nasjax.report.terminal import text_table
from nasjax.runs.folder import read_settings
from nasjax.runs.inputs import override_inputs
from nasjax.supernets import SuperNet
from nasjax.tasks.translation import TRANSLATION
from nasjax.words import plural


def extract(arguments: Arguments) -> int:
    """Runs `nasjax extract`."""
    options, settings = arguments.options, arguments.settings
    _check_options(options, settings)
    index = whole_number(options, "network", 0, "an index of evaluations.csv")
    batch = whole_number(options, "batch", 1, "a number of examples")
    exports = [f".{name.strip()}" for name in options.get("export", "").strip("[]").split(",") if name.strip()]
    for suffix in exports:
        kind(suffix)  # Raises ConfigError for an unknown one.
    if "subnet" in options:
        return _export_extracted(Path(options["subnet"]), arguments, exports, batch)
    return _extract_networks(arguments, index, exports, batch)


def _check_options(options: Mapping[str, str], settings: Sequence[str]) -> None:
    """Raises ConfigError for options and settings that contradict each other, and where no network is named."""
    selections = [key for key in ("network", "select", "arch", "archs") if key in options]
    given = "arch" in options or "archs" in options
    run = options.get("run")
    if "subnet" in options:
        contradicting = [key for key in ("run", *selections) if key in options]
        contradicting += ["supernet"] * any(word.startswith("supernet") for word in settings)
        if contradicting:
            raise ConfigError(f"subnet={options['subnet']} says which network: leave {contradicting[0]}= out")
        if not options.get("export"):
            formats = "export=stablehlo,onnx,pth,safetensors"
            raise ConfigError(f"subnet={options['subnet']} is extracted already: say what for, {formats}")
        return
    if run and (Path(run) / "network.safetensors").is_file():
        raise ConfigError(f"run={run} is a network, not a search: say subnet={run}")
    if len(selections) > 1:
        raise ConfigError(f"{selections[0]}= and {selections[1]}= both say which network: leave one out")
    if not run and not given:
        raise ConfigError("nasjax extract takes run=FOLDER, or settings and arch=GENE=OPTION,… or archs=FILE.csv")
    if given and "out" not in options:
        key = selections[0]
        raise ConfigError(f"{key}={options[key]} is not a network of a run: name its folder, out=FOLDER")


def _extract_networks(arguments: Arguments, index: int | None, exports: Sequence[str], batch: int | None) -> int:
    """Extracts networks of a run, or given ones, and prints what each is and where it lies."""
    options = arguments.options
    run = Path(options["run"]) if options.get("run") else None
    given = "arch" in options or "archs" in options
    if run is None:
        config = configuration_of(arguments)
    else:
        moved = [f"archive={options['archive']}"] if "archive" in options else []
        config = override_inputs(run, read_settings(run), [*moved, *arguments.settings])
    networks = [] if given or run is None else select_networks(run, options.get("select"), index, config.get("archive"))
    folders = _new_folders(options, networks)
    prepare_jax()
    restored = restore(config, run)
    if given:
        networks = from_choices(
            restored.net.space, options.get("arch"), Path(options["archs"]) if "archs" in options else None
        )
        folders = _new_folders(options, networks)
        if config.get("hardware") is not None:
            # First of all that runs here: nothing else should disturb what is timed.
            networks = _with_latencies(
                restored.net.shapes(restored.task.steps, restored.task.beams), config["hardware"], networks
            )
    with ProgressBar("networks", restored.task.objectives[0].name, len(networks)) as bar:

        def progress(done: int, last: WrittenSubnet) -> None:
            if len(networks) > 1:
                bar.update(done, len(networks), last.after)

        extracted = extract_and_write(restored, networks, folders, exports, batch, progress)
    _print_extracted(extracted)
    return 0


def _new_folders(options: Mapping[str, str], networks: Sequence[Candidate]) -> list[Path]:
    """The folder of each network. Raises ConfigError where one exists."""
    out = Path(options["out"]) if "out" in options else Path(options.get("run") or ".") / "subnets"
    one_folder = "out" in options and "archs" not in options and options.get("select") != "all"
    folders = [out] if one_folder else [out / str(network.index) for network in networks]
    for folder in folders:
        if "out" not in options and folder.exists():
            raise ConfigError(f"{folder} exists already, extracted before: say out=FOLDER, or remove it")
        new_place(f"out={out}: {folder}" if folder != out else f"out={out}", folder, "folder")
    return folders


def _with_latencies(net: SuperNet, hardware: Mapping[str, Any], networks: Sequence[Candidate]) -> list[Candidate]:
    """The same networks with their latencies on hardware: estimated by its latency model, and measured where it can be."""
    # The settings stored in a run say what it was timed on, too: `context` is not a setting.
    profile = profile_with_progress(net, {key: value for key, value in hardware.items() if key != "context"})
    archs = np.array([network.arch for network in networks], np.int32)
    estimated, measured = profile.model.exact(archs), profile.measure(archs)
    if profile.timer is not None:
        profile.timer.close()
    timed = []
    for network, estimate, value in zip(networks, estimated.tolist(), measured.tolist(), strict=True):
        both = {"latency_predicted": estimate, "latency_measured": value}
        timed.append(replace(network, metrics=both if np.isfinite(value) else {"latency": estimate}))
    return timed


def _print_extracted(extracted: Sequence[WrittenSubnet]) -> None:
    """Prints what the networks are, how exactly they agree with the super-network, a table, and how to load the first."""
    for network in extracted:
        print(f"Network {network.wanted.index}: {_choices(network.extracted.choices)}")
    worst = max(network.extracted.difference for network in extracted)
    examples = extracted[0].extracted.examples
    print(f"Verified against the super-network: outputs differ by at most {worst:.1e} on {plural(examples, 'example')}.")
    Console().print(text_table(table_rows(extracted)))
    first = extracted[0].folder
    files = ", ".join(sorted(file.name for file in first.iterdir()))
    place = first if len(extracted) == 1 else first.parent
    print(f"Written to {place} ({files}), each file loaded again and compared. To load:\n")
    use = f'net = nasjax.load("{first}")\n    outputs = net(inputs)'
    if (first / TRANSLATION).exists():
        use = f'translate = nasjax.load_translator("{first}")\n    texts = translate(sentences)  # or nasjax translate'
    print(f"    import nasjax\n    {use}")


def _choices(choices: Mapping[str, Any]) -> str:
    return ", ".join(f"{gene}={option}" for gene, option in choices.items())


def table_rows(extracted: Sequence[WrittenSubnet]) -> list[list[str]]:
    """A header, and for each network its index, latencies, the metric before and after re-calibration, and its size.

    `–` stands for what is not known.
    """
    metric = extracted[0].metric
    # On a recorded device a network has one latency: the recorded one where there is one, else the predicted one.
    names = {name for network in extracted for name in network.wanted.metrics}
    recorded = names & {"latency", "latency_measured"} == {"latency"}
    latencies = [f"latency (ms)\n{how}" for how in ("predicted\nor recorded" if recorded else "predicted", "measured")]
    header = ["index", *latencies, f"{metric}\nbefore", f"{metric}\nafter", "weights\n(MB)"]
    rows = []
    for network in extracted:
        known = network.wanted.metrics
        # On a device that measures, `latency` is what was measured; else it comes from a table or a predictor.
        predicted = known.get("latency_predicted" if "latency_measured" in known else "latency")
        times = ["–" if value is None else format_number(value) for value in (predicted, known.get("latency_measured"))]
        quality = [f"{value:.4g}" for value in (network.before, network.after)]
        rows.append([str(network.wanted.index), *times, *quality, f"{network.size / 1e6:.3g}"])
    return [header, *rows]


def _export_extracted(folder: Path, arguments: Arguments, exports: Sequence[str], batch: int | None) -> int:
    """Exports a network that was extracted or trained on: into its own folder, or with all its files into `out=`."""
    config = configuration_of(arguments)
    record = folder / "record.json"
    if record.is_file() and not any(word.startswith("task") for word in arguments.settings):
        config["task"] = _recorded_task(record)
    out = Path(arguments.options.get("out", folder))
    if out != folder:
        new_place(f"out={out}", out, "folder")
    prepare_jax()
    network, metrics = load_subnet(folder, config)
    if out == folder:
        written = add_exports(network, folder, exports, batch)
    else:
        written = sorted(network.save(out, exports, batch).iterdir())
    name, value = next(iter(metrics.items()))
    print(f"Network {folder}: {_choices(network.choices)}; {name} {value:.4g} on the validation examples")
    files = ", ".join(file.name for file in written)
    print(f"Written to {out} ({files}), each file loaded again and compared on {plural(network.examples, 'example')}.")
    return 0


def _recorded_task(record: Path) -> dict[str, Any]:
    """The task that a network was trained on, from its `record.json`. Raises ConfigError where that is damaged."""
    with naming_damage(record, "name the data, task=NAME"):
        task = parse_json(read_text(record))["settings"]["task"]
        if not isinstance(task, dict) or not isinstance(task["name"], str):
            raise ValueError(f"its task is {task!r:.60}")
        return task
