"""Super-networks: trained networks whose sub-networks are searched, and tables or functions that stand for one."""

from nasjax.supernets.catalogue import SHIPPED, SUPERNETS, abstract, create, from_largest, untrained_warning
from nasjax.supernets.checkpoints import load_weights, save_weights
from nasjax.supernets.external import ExternalNet
from nasjax.supernets.folders import load, save_network
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet
from nasjax.supernets.tabular import TabularNet

__all__ = [
    "SHIPPED",
    "SUPERNETS",
    "ExternalNet",
    "Stage",
    "SuperNet",
    "TabularNet",
    "abstract",
    "create",
    "from_largest",
    "load",
    "load_weights",
    "save_network",
    "save_weights",
    "untrained_warning",
]
