"""Networks timed on a device, none twice: a file keeps what was measured, a line each."""

import json
import logging
from collections.abc import Generator, Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.hardware.devices import Device, Failed
from nasjax.hardware.latency_table import network_name
from nasjax.hardware.measurement import Latency
from nasjax.supernets.supernet import SuperNet

LOG = logging.getLogger(__name__)

RECORD = '{"context": '
"""How every line of a file begins that keeps what was timed."""


class Timer:
    """Times networks on a device, one after the other, none twice; a file keeps what was measured (None: memory).

    `pace`: that to which all measurements are brought, milliseconds of `nasjax.hardware.pace`'s work; NaN until it is fixed.
    """

    def __init__(self, device: Device, file: Path | None, setting: Mapping[str, Any], pace: float = np.nan):
        self._device, self._file, self.pace = device, file, pace
        self.context = {**device.context, **setting}
        self.failure = ""  # What the device last said of a network that it could not time.
        self.told: dict[str, Latency] = {}  # What was asked for.
        self._known: dict[str, Latency] = {}
        if file is not None:
            _check_kept(file)
            self._known = dict(_kept(file, self._named()))
            self.pace = next(_paces(file, self._named()), pace)

    def _named(self) -> str:
        return sha256(json.dumps(self.context, sort_keys=True).encode()).hexdigest()[:16]

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        name = network_name(network, inputs)
        if name not in self._known:
            self._known[name] = self._device(network, inputs)
            self._keep({"name": name, **asdict(self._known[name])})
        self.told[name] = self._known[name]
        return self.told[name]

    def _keep(self, said: Mapping[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps({"context": self._named(), **said}) + "\n")

    def fix_pace(self) -> None:
        """Makes the usual pace, the median of those at which all was measured so far, that of all to come, for good."""
        paces = [one.work for one in self._known.values() if np.isfinite(one.work)]
        if np.isnan(self.pace) and paces:
            self.pace = float(np.median(paces))
            self._keep({"pace": self.pace})

    def usual(self, found: Latency) -> Latency:
        """A measurement at the pace that was fixed, where paces are known."""
        return found if np.isnan(found.work) else found.at(self.pace)

    def tried(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency | None:
        """As it was measured; None, with a line in the log, where the device fails on this network."""
        try:
            return self(network, inputs)
        except Failed as error:
            self.failure = str(error)
            LOG.warning("a network has no latency: %s", error)
            return None

    def close(self) -> None:
        self._device.close()


def _check_kept(file: Path) -> None:
    """Raises ConfigError for a file that measurements cannot be kept in, before any is made."""
    what = f"hardware.file={file}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+") as opened:
            opened.seek(0)
            begins = opened.read(len(RECORD))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{what} cannot keep what is timed: {why}; name another file") from None
    if not RECORD.startswith(begins):
        raise ConfigError(f"{what} holds no latencies kept before; name another file (hardware=csv reads tables)")


def _rows(file: Path, context: str) -> Generator[dict[str, Any], None, None]:
    """The lines of a context; one that a killed process left unfinished is passed over."""
    for line in file.read_text().splitlines():
        try:
            row = json.loads(line)
            if row["context"] == context:
                yield row
        except (ValueError, KeyError, TypeError):
            continue


def _kept(file: Path, context: str) -> Generator[tuple[str, Latency], None, None]:
    """What a file holds of a context."""
    columns = [column.name for column in fields(Latency)]
    for row in _rows(file, context):
        try:
            yield row["name"], Latency(**{column: row[column] for column in columns if column in row})
        except (KeyError, TypeError):
            continue


def _paces(file: Path, context: str) -> Generator[float, None, None]:
    """The paces that were fixed of a context: the first holds."""
    yield from (float(row["pace"]) for row in _rows(file, context) if "pace" in row)
