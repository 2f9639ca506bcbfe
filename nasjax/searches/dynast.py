"""Result tables of DyNAS-T (PyTorch) as tables of ours: what was measured there need not be measured again."""

import ast
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.errors import ConfigError
from nasjax.hardware.costs import cost_tables
from nasjax.space import Option
from nasjax.supernets import SuperNet
from nasjax.supernets.ofa.lists import from_ofa

ARCHITECTURE = "Sub-network"

METRICS = {
    "Model Parameters": "params",
    "Latency (ms)": "latency",
    "MACs": "macs",
    "Model Size": "model_size",
    "Top-1 Acc (%)": "accuracy_top1",
    "BLEU Score": "bleu",
    "SST-2 Acc": "accuracy_sst2",
}
"""Its columns and our names for them."""

EXACT = ("params", "macs", "model_size")
"""Metrics that are computed: two values for one network are a contradiction, not noise."""

DEPTHS = {"decoder_layer_num": "decoder_", "num_layers": ""}
"""A depth, and how the names of the lists begin that have an entry for each of its layers."""

SHIFTED = {"params": "latency", "latency": "macs", "macs": "params"}
"""What stands under which name in logs of its Transformers, whose latency is then above ABSURD."""

ABSURD = 1e6
"""Milliseconds that no network takes."""


@dataclass(frozen=True)
class Imported:
    """A table: `header` and `rows` as they are written, its `genes`, `evaluations` that it was made of, and `remarks`."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    genes: Sequence[str]
    evaluations: int
    remarks: Sequence[str]


def import_results(files: Sequence[Path], net: SuperNet | None = None) -> Imported:
    """The evaluations of DyNAS-T's result CSVs, one row a network: repeats become their mean, and `count`.

    `net` (its shapes will do) names the genes of Once-for-All's architectures; other architectures name their own. Exact
    costs are compared with those of `net`. Raises ConfigError, in one line, for what cannot be read or contradicts itself.
    """
    remarks: list[str] = []
    named = _layers if net is None else lambda lists: from_ofa(net, lists)  # type: ignore
    networks: dict[tuple[tuple[str, Option], ...], list[tuple[str, dict[str, float]]]] = {}
    for file in files:
        for place, lists, values in _rows(file, remarks):
            networks.setdefault(_choices(place, lists, named), []).append((place, values))
    metrics = list(dict.fromkeys(name for found in networks.values() for _, values in found for name in values))
    means = {arch: {name: _mean(name, found) for name in metrics} for arch, found in networks.items()}
    for name in [name for name in metrics if not any(values[name] for values in means.values())]:
        metrics.remove(name)
        remarks.append(f"{name} is 0 everywhere: it was not measured, and is left out")
    genes = list(net.space.names) if net is not None else _in_order([gene for arch in networks for gene, _ in arch])
    if net is not None:
        remarks += _compared(net, means)
    rows = [
        [i, "ok", "dynast", *(dict(arch).get(g, "") for g in genes), *(means[arch][m] for m in metrics), len(found)]
        for i, (arch, found) in enumerate(networks.items())
    ]
    header = ["index", "status", "source", *genes, *metrics, "count"]
    return Imported(header, rows, genes, sum(map(len, networks.values())), remarks)


def _rows(file: Path, remarks: list[str]) -> list[tuple[str, dict[str, Any], dict[str, float]]]:
    """Where each row stands, its architecture's lists, and its metrics."""
    if not file.is_file():
        raise ConfigError(f"{file} is not a file")
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            table = list(csv.DictReader(text))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read as CSV ({error})") from None
    if not table or ARCHITECTURE not in table[0]:
        raise ConfigError(f"{file} is not a result table of DyNAS-T: it has no rows with a column {ARCHITECTURE!r}")
    known = {column: name for column, name in METRICS.items() if column in table[0]}
    if not known:
        raise ConfigError(f"{file} has no metric; known columns are {', '.join(METRICS)}")
    found = []
    for line, row in enumerate(table, 2):
        place = f"{file}, row {line - 1}"
        try:
            lists = ast.literal_eval(row[ARCHITECTURE])
            values = {name: float(row[column]) for column, name in known.items()}
        except (ValueError, SyntaxError, TypeError):
            raise ConfigError(f"{place}: its architecture or one of its numbers cannot be read") from None
        if not isinstance(lists, dict):
            raise ConfigError(f"{place}: its architecture is not a table of lists")
        found.append((place, {name: value for name, value in lists.items() if value is not None}, values))
    if set(SHIFTED) <= set(known.values()) and min(values["latency"] for _, _, values in found) > ABSURD:
        remarks.append(f"{file}: params, latency and macs stand under each other's names there, and were put right")
        found = [(p, a, {SHIFTED.get(name, name): value for name, value in values.items()}) for p, a, values in found]
    return found


def _choices(
    place: str, lists: Mapping[str, Any], named: Callable[[Mapping[str, Any]], Mapping[str, Option]]
) -> tuple[tuple[str, Option], ...]:
    try:
        return tuple(named(lists).items())
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _layers(lists: Mapping[str, Any]) -> dict[str, Option]:
    """A gene an entry, numbered where a list has several; those of layers beyond the depth do not exist."""
    if {"d", "e"} <= set(lists):
        raise ConfigError("an architecture of Once-for-All: say whose, as in supernet=ofa_mbv3_d234_e346_k357_w1.0")
    depth = {start: lists[name][0] for name, start in DEPTHS.items() if name in lists}
    choices: dict[str, Option] = {}
    for name, entries in lists.items():
        entries = entries if isinstance(entries, list) else [entries]
        if len(entries) == 1:
            choices[name] = entries[0]
            continue
        reached = next((layers for start, layers in depth.items() if name.startswith(start)), len(entries))
        choices |= {f"{name}_{i}": entry for i, entry in enumerate(entries[:reached], 1)}
    return choices


def _in_order(genes: Sequence[str]) -> list[str]:
    """Each gene once, those of one list together and by number."""
    stems = list(dict.fromkeys(gene.rstrip("0123456789") for gene in genes))
    return sorted(set(genes), key=lambda gene: (stems.index(gene.rstrip("0123456789")), len(gene), gene))


def _mean(name: str, found: Sequence[tuple[str, Mapping[str, float]]]) -> float:
    """The mean of a network's values. Raises ConfigError where a computed one has two."""
    values = [values[name] for _, values in found if name in values]
    if name in EXACT:
        for place, row in found:
            if name in row and row[name] != values[0]:
                raise ConfigError(
                    f"{found[0][0]} and {place} are one network, but its {name} are {values[0]:.0f} and {row[name]:.0f}: "
                    f"they were counted by two rules; import the files apart"
                )
        return int(values[0]) if values else float("nan")
    return float(np.mean(values)) if values else float("nan")


def _compared(net: SuperNet, means: Mapping[Any, Mapping[str, float]]) -> list[str]:
    """How the exact costs of the table compare with our own count."""
    tables = cost_tables(net)
    archs = np.array([net.space.encode(dict(arch)) for arch in means], np.int32)
    remarks = []
    for name in EXACT:
        given = np.array([values.get(name, np.nan) for values in means.values()], np.float64)
        if name in tables and np.isfinite(given).all() and given.any():
            equal = int((tables[name].exact(archs) == given).sum())
            remarks.append(
                f"{name} are nasjax's own count"
                if equal == len(given)
                else f"{name} are nasjax's own count for {equal} of {len(given)} networks only: another counting rule"
            )
    return remarks
