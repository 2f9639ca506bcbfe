"""Graph-shaped genes: cells and graph neural networks, whose genes are edges, links and operations of a graph."""

from nasjax.graphs.declaration import declare
from nasjax.graphs.features import graph_features
from nasjax.graphs.functions import function_keys
from nasjax.graphs.graph import Graph

__all__ = ["Graph", "declare", "function_keys", "graph_features"]
