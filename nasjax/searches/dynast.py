"""Imports result tables of DyNAS-T (PyTorch), so that its measurements can be searched or serve as a warm start."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.csv_reader import CsvFile, read_csv
from nasjax.errors import ConfigError
from nasjax.hardware.costs import cost_tables
from nasjax.space import Option
from nasjax.supernets import SuperNet
from nasjax.supernets.families.transformer import Transformer
from nasjax.supernets.hat.lists import from_hat
from nasjax.supernets.ofa.lists import from_ofa
from nasjax.words import plural

ARCHITECTURE = "Sub-network"
"""DyNAS-T's column of architectures: a Python dict of lists, such as `{'ks': [3, 5], 'd': [2]}`."""

DYNAST_METRICS = {
    "Model Parameters": "params",
    "Latency (ms)": "latency",
    "MACs": "macs",
    "Model Size": "model_size",
    "Top-1 Acc (%)": "accuracy_top1",
    "BLEU Score": "bleu",
    "SST-2 Acc": "accuracy_sst2",
}
"""Metric columns of DyNAS-T, and their names in nasjax."""

EXACT = ("params", "macs", "model_size")
"""Metrics that are computed: two values for one network contradict each other, where measured ones are averaged."""

DEPTHS = {"decoder_layer_num": "decoder_", "num_layers": ""}
"""Depth genes, and the prefix of the lists with one entry a layer of that depth."""

SHIFTED = {"params": "latency", "latency": "macs", "macs": "params"}
"""DyNAS-T's Transformer logs mix up three columns: values named by a key here belong to its value."""

LATENCY_LIMIT = 1e6
"""Milliseconds; if every latency of a file is larger, its columns are `SHIFTED`."""


@dataclass(frozen=True)
class Imported:
    """An imported table: `header` and `rows` of its CSV file, its gene columns, and remarks for the user.

    `evaluations` is the number of rows that were read; repeated evaluations of one network are one row.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    genes: Sequence[str]
    evaluations: int
    remarks: Sequence[str]


def import_results(files: Sequence[Path], net: SuperNet | None = None) -> Imported:
    """Reads DyNAS-T's result CSVs into one row a network: the mean of repeated evaluations, and their `count`.

    `net`, which may be abstract, gives the genes of Once-for-All's and HAT's architectures their names, and its exact costs
    are compared with those in the files; without it, genes are named after the lists. Raises ConfigError for a file that
    cannot be read, and for contradictory exact costs.
    """
    remarks: list[str] = []
    to_choices: Callable[[Mapping[str, Any]], Mapping[str, Option]] = _choices_by_layer
    if net is not None:
        to_choices = partial(from_hat if isinstance(net, Transformer) else from_ofa, net)  # type: ignore[arg-type]
    networks: dict[tuple[tuple[str, Option], ...], list[tuple[str, dict[str, float]]]] = {}
    for file in files:
        for place, lists, values in _read_rows(file, remarks):
            networks.setdefault(_named_choices(place, lists, to_choices), []).append((place, values))
    metrics = list(dict.fromkeys(name for found in networks.values() for _, values in found for name in values))
    means = {arch: {name: _mean(name, found) for name in metrics} for arch, found in networks.items()}
    for name in [name for name in metrics if not any(np.nan_to_num(values[name]) for values in means.values())]:
        metrics.remove(name)
        remarks.append(f"{name} is 0 in every row: it was not measured, and is left out")
    genes = list(net.space.names) if net is not None else _sorted_genes([gene for arch in networks for gene, _ in arch])
    if net is not None:
        remarks += _compare_costs(net, means)
    rows = [
        [i, "ok", "dynast", *(dict(arch).get(g, "") for g in genes), *(means[arch][m] for m in metrics), len(found)]
        for i, (arch, found) in enumerate(networks.items())
    ]
    header = ["index", "status", "source", *genes, *metrics, "count"]
    return Imported(header, rows, genes, sum(map(len, networks.values())), remarks)


def _read_rows(file: Path, remarks: list[str]) -> list[tuple[str, dict[str, Any], dict[str, float]]]:
    """Each row's place for error messages, its architecture's lists, and its metrics; adds to `remarks`."""
    table = read_csv(str(file), file)
    rows = list(table.rows()) if ARCHITECTURE in table.columns else []
    if not rows:
        raise ConfigError(f"{file} is not a result table of DyNAS-T: it has no rows with a column {ARCHITECTURE!r}")
    known = {column: name for column, name in DYNAST_METRICS.items() if column in table.columns}
    if not known:
        raise ConfigError(f"{file} has no metric; known columns are {', '.join(DYNAST_METRICS)}")
    found = []
    for line, row in rows:
        place = f"{file}, line {line}"
        lists = _read_lists(f"{place}: column {ARCHITECTURE!r}", row[table.columns[ARCHITECTURE]])
        numbers = {name: _read_number(table, place, column, row[table.columns[column]]) for column, name in known.items()}
        values = {name: number for name, number in numbers.items() if not np.isnan(number)}
        found.append((place, {name: value for name, value in lists.items() if value is not None}, values))
    if set(SHIFTED) <= set(known.values()) and all(values.get("latency", np.inf) > LATENCY_LIMIT for _, _, values in found):
        remarks.append(f"{file}: the columns of params, latency and macs were mixed up; corrected")
        found = [(p, a, {SHIFTED.get(name, name): value for name, value in values.items()}) for p, a, values in found]
    return found


def _read_lists(place: str, cell: str) -> dict[str, Any]:
    """An architecture as DyNAS-T writes it. Raises ConfigError, with its place, for anything but a dict of lists."""
    try:
        lists = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ConfigError(f"{place} holds {cell!r:.60}, which is not an architecture: a dict of lists") from None
    options = (int, float, str)
    if not isinstance(lists, dict) or not all(
        isinstance(name, str)
        and (entries is None or isinstance(entries, options) or (isinstance(entries, list) and len(entries) > 0))
        and all(isinstance(entry, options) for entry in (entries if isinstance(entries, list) else []))
        for name, entries in lists.items()
    ):
        raise ConfigError(f"{place} holds {cell!r:.60}, which is not a dict of lists of numbers or words")
    return lists


def _read_number(table: CsvFile, place: str, column: str, cell: str) -> float:
    """A metric, NaN where it is missing. Raises ConfigError, with its place, for a cell that is no finite number."""
    try:
        value = table.number(cell)
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise ConfigError(f"{place}: column {column!r} holds {cell!r:.60}, which is not a finite number")
    return value


def _named_choices(
    place: str, lists: Mapping[str, Any], to_choices: Callable[[Mapping[str, Any]], Mapping[str, Option]]
) -> tuple[tuple[str, Option], ...]:
    """An architecture as pairs of gene and option. Raises ConfigError, with its place, where it is invalid."""
    try:
        return tuple(to_choices(lists).items())
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _choices_by_layer(lists: Mapping[str, Any]) -> dict[str, Option]:
    """One gene an entry of a list, numbered where there are several; layers beyond the depth have none."""
    if {"d", "e"} <= set(lists):
        raise ConfigError(
            "an architecture of Once-for-All: name its super-network, as in supernet=ofa_mbv3_d234_e346_k357_w1.0"
        )
    listed = {name: entries if isinstance(entries, list) else [entries] for name, entries in lists.items()}
    depth = {start: listed[name][0] for name, start in DEPTHS.items() if name in listed}
    for name in DEPTHS:
        if name in listed and not isinstance(listed[name][0], int):
            raise ConfigError(f"list {name!r} holds {listed[name][0]!r:.60}, which is not a number of layers")
    choices: dict[str, Option] = {}
    for name, entries in listed.items():
        if len(entries) == 1:
            choices[name] = entries[0]
            continue
        number = next((layers for start, layers in depth.items() if name.startswith(start)), len(entries))
        choices |= {f"{name}_{i}": entry for i, entry in enumerate(entries[:number], 1)}
    return choices


def _sorted_genes(genes: Sequence[str]) -> list[str]:
    """Each gene once: those of one list side by side, by number."""
    stems = list(dict.fromkeys(gene.rstrip("0123456789") for gene in genes))
    return sorted(set(genes), key=lambda gene: (stems.index(gene.rstrip("0123456789")), len(gene), gene))


def _mean(name: str, found: Sequence[tuple[str, Mapping[str, float]]]) -> float:
    """The mean of a network's values of a metric, NaN for none. Raises ConfigError where exact costs differ."""
    values = [values[name] for _, values in found if name in values]
    if name in EXACT:
        for place, row in found:
            if name in row and row[name] != values[0]:
                raise ConfigError(
                    f"{found[0][0]} and {place} are one network, but its {name} are {values[0]:.0f} and {row[name]:.0f}: "
                    f"they were counted by different rules; import the files separately"
                )
        return int(values[0]) if values else float("nan")
    return float(np.mean(values)) if values else float("nan")


def _compare_costs(net: SuperNet, means: Mapping[Any, Mapping[str, float]]) -> list[str]:
    """Remarks on how the exact costs of the files compare with those of the super-network."""
    tables = cost_tables(net)
    archs = np.array([net.space.encode(dict(arch)) for arch in means], np.int32)
    remarks = []
    for name in EXACT:
        given = np.array([values.get(name, np.nan) for values in means.values()], np.float64)
        if name in tables and np.isfinite(given).all() and given.any():
            equal, all_of_them = int((tables[name].exact(archs) == given).sum()), plural(len(given), "network")
            remarks.append(
                f"{name} equal nasjax's count"
                if equal == len(given)
                else f"{name} equal nasjax's count for {equal} of {all_of_them} only: another counting rule"
            )
    return remarks
