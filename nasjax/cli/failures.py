"""What is printed whatever the terminal shows, and what an error means: its exit code and its line."""

import errno
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper

from nasjax.errors import ConfigError, printable

INVALID = 2
BUG = 1
INTERRUPTED = 130
UNREAD = 141

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes of a disk, a quota or a file that is full."""


@contextmanager
def naming_full_disk(resume: str) -> Iterator[None]:
    """Raises ConfigError where the disk is full within the block; `resume` is the command that continues."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        what = f"disk full while writing {error.filename or 'to it'}"
        raise ConfigError(f"{what}: make room; {resume} continues from what is stored") from error


def import_jax() -> None:
    """Imports JAX. Raises ConfigError where it refuses an environment variable."""
    try:
        import_module("jax")
    except ValueError as error:
        raise ConfigError(f"JAX does not start with this environment (JAX_… variables): {error}") from None


def report_failure(error: Exception) -> tuple[int, str]:
    """Exit code and one line for an error; for a bug of nasjax its traceback is printed first.

    Invalid settings (ConfigError) and problems with files or disks (OSError) exit with 2, everything else with 1.
    """
    if isinstance(error, ConfigError):
        return INVALID, shortened(str(error))
    if isinstance(error, OSError):
        return INVALID, shortened(f"{error.filename or 'the file system'}: {error.strerror or error}")
    traceback.print_exception(error)
    return BUG, f"this is a bug of nasjax, please report the traceback above ({type(error).__name__})"


def nobody_reads() -> bool:
    """Whether the output is a pipe that was closed at its other end; what is still to be printed is then dropped."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # Within Python, what is printed may go anywhere.
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def print_any_character() -> None:
    """Prints "?" for characters that the terminal's encoding lacks; Python's error output does the like by itself."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def shortened(line: str) -> str:
    """A line for the terminal: control characters escaped, the middle left out of words over 300 and lines over 1,200."""
    line = re.sub(r"\S{300,}", lambda match: f"{match[0][:100]}…{match[0][-100:]}", printable(line))
    return line if len(line) <= 1200 else f"{line[:800]} … {line[-300:]}"
