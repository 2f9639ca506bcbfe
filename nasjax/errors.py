"""What is raised for invalid settings, files and data, and how an evaluator says why it could not measure."""

from collections.abc import Iterator
from contextlib import contextmanager

FAILURE = "failure"
"""The name under which evaluators say why architectures failed ("" for the others), beside their metrics."""


class ConfigError(ValueError):
    """A person's mistake: what is wrong, where, what is allowed and what to do, in one line.

    The command line prints it and exits with code 2. Every other exception is a bug of nasjax, keeps its traceback and
    exits with code 1.
    """


def one_line(error: BaseException) -> str:
    """The type of an exception of a user's code and the first 200 characters of its message, on one line.

    Control characters (colours of a terminal, zero bytes) are escaped: the line is shown, and kept in the archive.
    """
    try:
        message = " ".join(str(error).split())[:200]
    except Exception:  # The exception is the user's: it may have no text.
        message = "its message cannot be shown"
    return f"{type(error).__name__}: {printable(message)}"


def printable(text: str) -> str:
    """A text with its control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def naming_damage(place: object, advice: str) -> Iterator[None]:
    """Turns the errors that malformed data raise in the block into one ConfigError: `place`, what is wrong, and `advice`.

    `place` is the file, and the line where it is known; the block reads or checks nothing else.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(f"{place} is damaged ({reason}): {advice}") from error
