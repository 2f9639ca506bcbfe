"""Timer: times networks on a device, none twice, with a file of measurements."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PyTree

from nasjax.errors import ConfigError
from nasjax.hardware.devices import Device, TimingError
from nasjax.hardware.latency_table import extracted, network_name
from nasjax.hardware.measurement import Latency
from nasjax.host import parse_json, read_lines, regular_file
from nasjax.supernets.supernet import SuperNet

LOG = logging.getLogger(__name__)

RECORD_START = '{"context": '
"""The beginning of every line in a file of measurements."""


class Timer:
    """Times networks on a device, one after the other, none twice.

    `file` stores measurements, one JSON object a line (None: in memory only). `precision`: settings of the measurements,
    which are kept apart by device, precision and compiler. `reference_pace`: the pace to which all latencies are scaled, in
    milliseconds of the workload of `nasjax.hardware.pace`; NaN until it is fixed, and replaced by the file's, if it has one.
    `requested` holds the measurements that were asked for, `last_failure` the last message of the device about a network
    that it could not time.
    """

    def __init__(self, device: Device, file: Path | None, precision: Mapping[str, Any], reference_pace: float = np.nan):
        self._device, self._file, self.reference_pace = device, file, reference_pace
        self.context = {**device.context, **precision}
        self.last_failure = ""
        self.requested: dict[str, Latency] = {}
        self._measured: dict[str, Latency] = {}
        if file is not None:
            _check_file(file)
            records = _records(file, self._context_digest())
            self._measured = dict(_stored_latencies(records))
            self.reference_pace = next(_stored_paces(records), reference_pace)

    def _context_digest(self) -> str:
        return sha256(json.dumps(self.context, sort_keys=True).encode()).hexdigest()[:16]

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        """Latency of a network at the pace at which it was measured. Raises TimingError if the device cannot time it."""
        name = network_name(network, inputs)
        if name not in self._measured:
            self._measured[name] = self._device(network, inputs)
            self._append({"name": name, **asdict(self._measured[name])})
        self.requested[name] = self._measured[name]
        return self.requested[name]

    def sub_network(self, net: SuperNet, arch: Int[np.ndarray, " genes"], batch: int) -> Latency | None:
        """Latency of a whole sub-network; None, with a warning in the log, if the device cannot time it."""
        network = extracted(net, tuple(map(int, arch)))
        try:
            return self(network, network.inputs(batch))
        except TimingError as error:
            self.last_failure = str(error)
            LOG.warning("a network could not be timed: %s", error)
            return None

    def fix_reference_pace(self) -> None:
        """Fixes the reference pace for all later measurements, unless it is fixed: the median pace of those so far."""
        paces = [latency.work for latency in self._measured.values() if np.isfinite(latency.work)]
        if np.isnan(self.reference_pace) and paces:
            self.reference_pace = float(np.median(paces))
            self._append({"pace": self.reference_pace})

    def at_reference_pace(self, latency: Latency) -> Latency:
        """A measurement scaled to the reference pace; unchanged if its own pace is unknown."""
        return latency if np.isnan(latency.work) else latency.at(self.reference_pace)

    def close(self) -> None:
        self._device.close()

    def _append(self, values: Mapping[str, Any]) -> None:
        """Adds a line to the file."""
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"context": self._context_digest(), **values}) + "\n")


def _check_file(file: Path) -> None:
    """Raises ConfigError for a file that cannot store measurements, before any is made."""
    setting = f"hardware.file={file}"
    if file.exists():
        regular_file(setting, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as opened:
            opened.seek(0)
            start = opened.read(len(RECORD_START))
    except OSError as error:
        raise ConfigError(f"{setting} cannot store measurements: {error.strerror}; name another file") from None
    if not RECORD_START.encode().startswith(start):
        raise ConfigError(f"{setting} is not a file of stored measurements; name another file (hardware=csv reads tables)")


def _records(file: Path, context: str) -> list[dict[str, Any]]:
    """The records with that context digest. Damaged lines are skipped: a killed process leaves one, and they are few."""
    found, damaged = [], 0
    for line in read_lines(file):
        try:
            record = parse_json(line)
            if record["context"] == context:
                found.append(record)
        except (ValueError, LookupError, TypeError):
            damaged += 1
    if damaged:
        LOG.warning("hardware.file=%s: %d damaged lines are left out, what they held is timed again", file, damaged)
    return found


def _stored_latencies(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Latency]]:
    """Names of networks and their latencies in the records of a file."""
    columns = {column.name: column.type for column in fields(Latency)}
    for record in records:
        values = {name: record[name] for name in columns if name in record}
        numbers = [value for name, value in values.items() if columns[name] in (float, int)]
        if not isinstance(record.get("name"), str) or not all(isinstance(value, int | float) for value in numbers):
            continue
        try:
            latency = Latency(**values)
        except TypeError:  # A column is missing.
            continue
        if 0 < latency.median < np.inf and 0 <= latency.spread < np.inf:
            yield record["name"], latency


def _stored_paces(records: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """Reference paces in the records of a file; the first one is valid."""
    paces = [record["pace"] for record in records if "pace" in record]
    yield from (float(pace) for pace in paces if isinstance(pace, int | float) and 0 < pace < np.inf)
