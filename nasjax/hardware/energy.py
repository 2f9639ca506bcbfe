"""Energy counters of processors (RAPL), read through Linux's powercap interface."""

from dataclasses import dataclass
from pathlib import Path

from nasjax.errors import ConfigError

POWERCAP = Path("/sys/class/powercap")
"""Linux has a folder for each energy domain here: https://docs.kernel.org/power/powercap/powercap.html."""


@dataclass(frozen=True)
class EnergyCounter:
    """Energy of all processor packages (cores, caches and memory controller of a socket).

    `domains`: for each package the file of its counter, in microjoules, and the value at which that counter wraps to 0.
    """

    domains: tuple[tuple[Path, int], ...]

    def read(self) -> tuple[int, ...]:
        """Current counter of every package, in microjoules; only differences between two readings mean anything."""
        return tuple(int(file.read_text(encoding="utf-8")) for file, _ in self.domains)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Energy of all packages between two readings, during which each counter may wrap once."""
        spent = (
            last - first + (wraps_at if last < first else 0)
            for first, last, (_, wraps_at) in zip(before, after, self.domains, strict=True)
        )
        return 1e-6 * sum(spent)


def energy_counter(folder: Path = POWERCAP) -> EnergyCounter:
    """Energy counter of this machine. Raises ConfigError, with what to do, if there is none or it cannot be read."""
    # Domains inside a package have two numbers (intel-rapl:0:1); psys, where it exists, counts the packages again.
    zones = sorted(folder.glob("intel-rapl:*"))
    packages = [zone for zone in zones if zone.name.count(":") == 1 and _stripped_text(zone / "name").startswith("package")]
    if not packages:
        raise ConfigError(
            f"energy needs the processor's energy counter, and this machine shows none: no {folder}/intel-rapl:*/name says "
            "package (Linux on Intel and AMD has it, most virtual machines do not); leave energy out"
        )
    domains = tuple((zone / "energy_uj", int(_stripped_text(zone / "max_energy_range_uj"))) for zone in packages)
    for file, _ in domains:
        try:
            file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"energy needs {file}, which cannot be read ({error.strerror}): sudo chmod a+r {file}, or leave energy out"
            ) from None
    return EnergyCounter(domains)


def optional_energy_counter() -> EnergyCounter | None:
    """Energy counter of this machine; None if there is none or it cannot be read."""
    try:
        return energy_counter()
    except ConfigError:
        return None


def _stripped_text(file: Path) -> str:
    """Content of a file without surrounding white space; empty if there is no such file."""
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
