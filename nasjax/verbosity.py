"""How much is shown besides results: `quietly` neither progress nor the log, `verbosely` the log from Python, too."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_quiet = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block no progress is shown, and no log but warnings."""
    logger = logging.getLogger("nasjax")
    token, level = _quiet.set(True), logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _quiet.reset(token)
        logger.setLevel(level)


def is_quiet() -> bool:
    """Whether this runs within `quietly`."""
    return _quiet.get()


@contextmanager
def verbosely() -> Iterator[None]:
    """Within the block nasjax's log is shown on the error output, as commands show it."""
    logger, handler = logging.getLogger("nasjax"), logging.StreamHandler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
