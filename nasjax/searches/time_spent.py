"""Where the time of a search goes, by part; compiling counts by itself, wherever it happens."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident

import jax

from nasjax.evaluation.stage_programs import WAITED

COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration", WAITED)
"""Events of compiling: lowering a traced function, XLA's work or reading its result from the cache, and waiting for threads
that compile."""


class TimeSpent:
    """Seconds since it was made, by part: those in blocks of `on`, `compiling` within these, and the rest."""

    def __init__(self) -> None:
        _compiled()  # Counts from now on.
        self._began, self._thread = time.monotonic(), get_ident()
        self._parts: dict[str, float] = defaultdict(float)
        self._inner: list[tuple[float, float]] = []

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Counts the block's time as that of a part, without what is compiled in it and without blocks that lie in it.

        Other threads than that which made this count nothing: they run beside it.
        """
        if get_ident() != self._thread:
            yield
            return
        began, compiled = time.monotonic(), _compiled()[self._thread]
        self._inner.append((0.0, 0.0))
        try:
            yield
        finally:
            took, compiling = time.monotonic() - began, _compiled()[self._thread] - compiled
            inner_took, inner_compiling = self._inner.pop()
            if self._inner:
                self._inner[-1] = (self._inner[-1][0] + took, self._inner[-1][1] + compiling)
            own = took - inner_took
            own_compiling = min(own, max(0.0, compiling - inner_compiling))
            self._parts[part] += own - own_compiling
            self._parts["compiling"] += own_compiling

    def seconds(self) -> dict[str, float]:
        """All parts, `other`, and their `total`, in seconds."""
        total = time.monotonic() - self._began
        return {"total": total, **self._parts, "other": max(0.0, total - sum(self._parts.values()))}


@cache
def _compiled() -> dict[int, float]:
    """The seconds that each thread of this process has spent compiling since the first call; JAX's events add to them."""
    totals: dict[int, float] = defaultdict(float)

    def count(event: str, duration_secs: float, **_: str | int) -> None:
        if event in COMPILING:
            totals[get_ident()] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(count)
    return totals
