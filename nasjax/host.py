"""The host machine: its processors, memory and cache folder; files that may be read, and atomic writes."""

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError

LARGEST_TEXT = 0.25
"""The share of this machine's memory that a text file may take: read and parsed it needs several times its size."""

MOST_FOLDERS = 200
"""How many folders in one another a path may have: Python makes them by recursion."""

KINDS_OF_FILE = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
    stat.S_IFSOCK: "it is a socket",
}
"""What a path may be that is no regular file, for messages."""


def processors() -> int:
    """Returns the number of processors that this process may use, as XLA counts them."""
    # Only Linux has the processors that a process is bound to.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Returns the model name of this machine's processor, or "unknown CPU"."""
    lines = read_lines("/proc/cpuinfo")
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def command_line() -> str | None:
    """Returns the command of nasjax that this process runs, as it would be typed; None in a program of another's."""
    program, *words = sys.argv or [""]
    ours = Path(program).name == "nasjax" or Path(program).parts[-2:] == ("nasjax", "__main__.py")
    return shlex.join(["nasjax", *words]) if ours else None


def git_commit() -> str | None:
    """Returns the commit of the git repository that this runs in, with "+" where files differ; None outside of one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            capture_output=True, encoding="utf-8", timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def memory_bytes() -> int:
    """Returns the physical memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cache_folder() -> Path:
    """Returns the folder in which nasjax keeps compiled programs and timings between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasjax"


def regular_file(said: str, path: str | Path) -> Path:
    """Returns the path of a regular file (or a link to one), which can be read to its end: no folder, pipe or device.

    Raises ConfigError, which begins with `said` (the setting and its value), for anything else.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte.
        missing = not isinstance(error, PermissionError)
        raise ConfigError(f"{said} is not a file: {'it does not exist' if missing else 'it may not be read'}") from None
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{said} is not a file: {KINDS_OF_FILE.get(stat.S_IFMT(mode), 'it is something else')}")
    return file


def is_database(file: Path) -> bool:
    """Whether a regular file is a database of SQLite."""
    with file.open("rb") as opened:
        return opened.read(15) == b"SQLite format 3"


def new_place(said: str, path: str | Path, kind: str = "file") -> Path:
    """Returns a path that is still free: nasjax never writes over what a person has, be it a file, a folder or a device.

    Raises ConfigError, which begins with `said`, where it exists, or its folder does not. Folders above a new folder
    (`kind`) need not exist, but must be folders where they do.
    """
    place = Path(path)
    if os.path.lexists(place):
        raise ConfigError(f"{said} exists already; name another {kind}, or remove it")
    above = place.parent
    while kind == "folder" and not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise ConfigError(f"{said}: there is no folder {above}")
    return place


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


def read_text(path: str | Path, errors: str = "strict") -> str:
    """Returns a text file's content (UTF-8, a byte-order mark removed), line ends as they are.

    `errors`: as for `bytes.decode`. Raises ConfigError for what is no regular file, no text, or larger than memory bears.
    """
    path = regular_file(str(path), path)
    if path.stat().st_size > LARGEST_TEXT * memory_bytes():
        raise ConfigError(f"{path} has {path.stat().st_size / 1e9:.3g} GB, too many for this machine's memory")
    try:
        return path.read_bytes().decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})") from None


def parse_json(text: str | bytes) -> Any:
    """Returns the data of a JSON text; its numbers may be NaN or infinite. Raises ValueError for anything else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def read_lines(path: str | Path) -> list[str]:
    """Returns the lines of a text file, damaged characters replaced; none if it does not exist. Raises as `read_text`."""
    return read_text(path, "replace").splitlines() if Path(path).exists() else []


def append_line(path: str | Path, line: str) -> None:
    """Appends a line to a text file, which is created if missing.

    Raises OSError if it cannot be written, ConfigError if it is no regular file.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        regular_file(str(file), file)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(line + "\n")
