"""Calls a function of the user's that measures architectures, in this process or as a worker process (`main`).

It imports neither JAX nor the script that the search runs in, so that a worker holds what the function needs and no more.
"""

import math
import os
import select
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from inspect import getsource, getsourcefile, isclass, isroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nasjax.errors import FAILURE, ConfigError, one_line
from nasjax.registry import import_object


def main(descriptor: int, path: str, metrics: Sequence[str]) -> None:
    """Imports the function `path` (`module:function`), then answers batches until the search is gone.

    The connection of that file descriptor is sent the function's `source_digest` or a ConfigError first, then the `answers`
    to each batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search; this process ends with it.
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_search, args=(descriptor,), daemon=True).start()
    with suppress(EOFError, ConnectionError):
        try:
            function = import_object(path, "supernet.evaluate")
            if not callable(function):
                raise ConfigError(f"supernet.evaluate={path} is {_shown(function)}, not a function")
        except ConfigError as error:
            connection.send(error)
            return
        connection.send(source_digest(function))
        while True:
            connection.send(answers(function, connection.recv(), metrics))


def _end_with_search(descriptor: int) -> None:
    """Ends this process and all that it started, even during a call, when the search has ended, however that was."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)  # No events but the hang-up, which is always reported.
    hang_up.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def answers(
    function: Callable[[list[dict[str, Any]]], Any], batch: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Calls a function with architectures; one answer each: metrics as floats, and as `FAILURE` why there are none."""
    try:
        results = function([dict(choices) for choices in batch])
        listed = list(results) if isinstance(results, Iterable) and not isinstance(results, Mapping | str) else []
        if len(listed) != len(batch):
            raise _WrongAnswer(
                f"returned {_shown(results)}, not a list with one dict of metrics for each of {len(batch)} architectures"
            )
        return [_answer(result, metrics) for result in listed]
    except _WrongAnswer as error:
        reason = str(error)
    except (Exception, SystemExit) as error:  # The function is the user's: it may raise anything.
        reason = f"raised {one_line(error)}"
    return [{FAILURE: reason} for _ in batch]


class _WrongAnswer(Exception):
    """What a function returned has not the form that it must have."""


def _answer(result: Any, metrics: Sequence[str]) -> dict[str, Any]:
    """The answer for one architecture; metrics that are numbers are in it even if others are not."""
    if not isinstance(result, Mapping):
        return {FAILURE: f"returned {_shown(result)}, not a dict of metrics"}
    numbers = {name: _number(result.get(name)) for name in metrics}
    answer: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
    if missing := [name for name in metrics if name not in result]:
        return answer | {FAILURE: f"returned {', '.join(map(str, result)) or 'no metric'}, not {missing[0]}"}
    if wrong := [name for name in metrics if not math.isfinite(answer.get(name, math.nan))]:
        return answer | {FAILURE: f"returned {wrong[0]}={_shown(result[wrong[0]])}, not a finite number"}
    return answer


def _number(value: Any) -> float | None:
    """A number of any library, or an array with no dimensions, as a float; None for everything else."""
    try:
        return float(value) if hasattr(value, "__float__") and not getattr(value, "shape", ()) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def source_digest(function: Any) -> str | None:
    """The SHA-256 of the file that a function is written in, or of its own text where there is no file (in a notebook).

    None for a compiled function. Random for one whose text is not known: it may be another one of the same name.
    """
    function = getattr(function, "func", function)  # The function of a `functools.partial`.
    written = function if isroutine(function) or isclass(function) else type(function)
    try:
        file = Path(getsourcefile(written) or "")
        text = file.read_bytes() if file.is_file() else getsource(written).encode()
    except TypeError:
        return None
    except OSError:
        text = uuid.uuid4().bytes
    return sha256(text).hexdigest()
