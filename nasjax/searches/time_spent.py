"""Where the time of a search goes, by part; compiling counts by itself, wherever it happens."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident

import jax

COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
"""JAX's events of compiling: lowering a traced function, and XLA's work or reading its result from the cache."""


class TimeSpent:
    """Seconds since it was made, by part: those in blocks of `on`, `compiling` within these, and the rest."""

    def __init__(self) -> None:
        _compiled()  # Counts from now on.
        self._began = time.monotonic()
        self._parts: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Counts the block's time as that of a part, without what is compiled in it. Blocks do not lie in one another."""
        began, compiled = time.monotonic(), _compiled()[get_ident()]
        try:
            yield
        finally:
            took = time.monotonic() - began
            compiling = min(took, _compiled()[get_ident()] - compiled)
            self._parts[part] += took - compiling
            self._parts["compiling"] += compiling

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
