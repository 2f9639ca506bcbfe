"""nasjax finds the Pareto-optimal sub-networks of a trained super-network, with few real evaluations.

>>> import nasjax
>>> net = nasjax.supernets.create("digits")
>>> net.space.size
74088
>>> net.space.names[:5]
('depth_1', 'depth_2', 'depth_3', 'kernel_1_1', 'expand_1_1')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nasjax.version import __version__

if TYPE_CHECKING:
    from nasjax import supernets, tasks
    from nasjax.deploy.translator import load_translator
    from nasjax.interface import search
    from nasjax.searches.front import Front
    from nasjax.searches.loop import Progress, searching
    from nasjax.searches.problem import follow
    from nasjax.searches.seeds import search_seeds
    from nasjax.supernets.folders import load

_PLACES = {
    "Front": "nasjax.searches.front",
    "Progress": "nasjax.searches.loop",
    "follow": "nasjax.searches.problem",
    "load": "nasjax.supernets.folders",
    "load_translator": "nasjax.deploy.translator",
    "search": "nasjax.interface",
    "search_seeds": "nasjax.searches.seeds",
    "searching": "nasjax.searches.loop",
    "supernets": "nasjax",
    "tasks": "nasjax",
}

__all__ = [
    "Front", "Progress", "__version__", "follow", "load", "load_translator", "search", "search_seeds", "searching",
    "supernets", "tasks",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Imports on first use: `nasjax --help` does not wait for JAX."""
    if name not in _PLACES:
        raise AttributeError(f"module 'nasjax' has no attribute {name!r}")
    place = _PLACES[name]
    return import_module(f"nasjax.{name}") if place == "nasjax" else getattr(import_module(place), name)
