"""The host machine: its processors, memory and cache folder; and atomic file writes."""

import os
from pathlib import Path


def processors() -> int:
    """Returns the number of processors that this process may use, as XLA counts them."""
    # Only Linux has the processors that a process is bound to.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Returns the model name of this machine's processor, or "unknown CPU"."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def memory_bytes() -> int:
    """Returns the physical memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cache_folder() -> Path:
    """Returns the folder in which nasjax keeps compiled programs and timings between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasjax"


def write_text(path: Path, text: str) -> None:
    """Writes a text file (UTF-8) atomically: it appears complete, or not at all. Raises OSError with the file's name."""
    replace_file(path, text.encode())


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file atomically, replacing an earlier one: it appears complete, or not at all.

    Raises OSError with the file's name, which Python's own error for a full disk lacks.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def read_lines(path: str | Path) -> list[str]:
    """Returns the lines of a text file; none if it does not exist."""
    file = Path(path)
    return file.read_text(errors="replace").splitlines() if file.is_file() else []


def append_line(path: str | Path, line: str) -> None:
    """Appends a line to a text file, which is created if missing. Raises OSError if it cannot be written."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a") as file:
        file.write(line + "\n")
