"""The energy counter of a processor: joules by Linux's powercap, where the processor counts them (RAPL)."""

from dataclasses import dataclass
from pathlib import Path

from nasjax.errors import ConfigError

POWERCAP = Path("/sys/class/powercap")
"""Where Linux has a folder for each domain: https://docs.kernel.org/power/powercap/powercap.html."""


@dataclass(frozen=True)
class Counter:
    """The processors' packages, all cores and caches: of each the file of its counter, and where that begins anew (uJ)."""

    domains: tuple[tuple[Path, int], ...]

    def read(self) -> tuple[int, ...]:
        """Microjoules of every package so far, from some beginning."""
        return tuple(int(file.read_text()) for file, _ in self.domains)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """What all packages took between two readings, in which no counter began anew more than once."""
        spent = (
            now - then + (most if now < then else 0)
            for then, now, (_, most) in zip(before, after, self.domains, strict=True)
        )
        return 1e-6 * sum(spent)


def energy_counter(folder: Path = POWERCAP) -> Counter:
    """This machine's counter. Raises ConfigError, with what to do, where there is none or it cannot be read."""
    # Domains inside a package have two numbers (intel-rapl:0:1); psys, where there is one, counts the packages again.
    zones = sorted(folder.glob("intel-rapl:*"))
    packages = [zone for zone in zones if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")]
    if not packages:
        raise ConfigError(
            f"energy needs the processor's counter, and there is none: no {folder}/intel-rapl:*/name says package "
            "(Linux on Intel or AMD has it, virtual machines mostly not); leave energy out"
        )
    domains = tuple((zone / "energy_uj", int(_text(zone / "max_energy_range_uj"))) for zone in packages)
    for file, _ in domains:
        try:
            file.read_text()
        except OSError as error:
            raise ConfigError(
                f"energy needs {file}, which cannot be read ({error.strerror}): sudo chmod a+r {file}, or leave energy out"
            ) from None
    return Counter(domains)


def counter_here() -> Counter | None:
    """This machine's counter; None where there is none, or it cannot be read."""
    try:
        return energy_counter()
    except ConfigError:
        return None


def _text(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""
