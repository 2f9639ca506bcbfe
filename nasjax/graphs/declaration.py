"""How graphs are declared: a few words say which genes are edges, links and operations of nodes (`declare`)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nasjax.errors import ConfigError
from nasjax.graphs.features import FEATURES
from nasjax.graphs.graph import IDENTITY, ZERO, Choice, Edge, Graph
from nasjax.space import Gene, SearchSpace

PLACEHOLDERS = {"edges": ("TO", "FROM"), "links": ("TO",), "nodes": ("TO",)}
"""The words that a pattern of gene names must have, in place of the numbers of nodes."""

OUTPUTS = ("last", "unread", "all")
"""What a graph's output is: its last node, all nodes that no other reads, or all nodes but the inputs, joined."""


@dataclass(frozen=True)
class Words:
    """The words of a declaration.

    Attributes:
      edges: genes whose options are operations on edges: a pattern of their names with `FROM` and `TO` in place of the
        numbers of the nodes (`edge_TO_FROM`), or a mapping from genes to `FROM-TO`.
      links: genes whose options are the numbers of the nodes that a node reads (`link_TO`), or a mapping from genes to `TO`.
      nodes: genes whose options are operations of nodes, on the sum of what they read (`op_TO`), or a mapping like `links`'.
      zero: the options that cut an edge or a node off.
      identity: the options that change nothing.
      output: one of `OUTPUTS`; by default `unread` with links, else `last`.
      features: what predictors read of functions, one of `FEATURES`.
    """

    edges: Any = ()
    links: Any = ()
    nodes: Any = ()
    zero: Any = ()
    identity: Any = ()
    output: str = ""
    features: str = "paths"


def declare(space: SearchSpace, words: Mapping[str, Any], setting: str = "supernet.graph") -> Graph | None:
    """The graph that `words` declare on the genes of a space; None for no words.

    Raises ConfigError, naming the `setting`, for unknown words, genes and options, and for edges that do not lead upward.
    """
    if not words:
        return None
    return _Reader(space, setting, _checked(words, setting)).graph()


def _checked(words: Mapping[str, Any], setting: str) -> Words:
    allowed = tuple(Words.__dataclass_fields__)
    for word in words:
        if word not in allowed:
            raise ConfigError(f"{setting} has no word {str(word)!r}; allowed: {', '.join(allowed)}")
    said = Words(**words)
    for word, given, names in (("output", said.output or OUTPUTS[0], OUTPUTS), ("features", said.features, FEATURES)):
        if given not in names:
            raise ConfigError(f"{setting}.{word} must be one of {', '.join(names)}, not {given!r}")
    if not said.edges and not said.links:
        raise ConfigError(f"{setting} needs edges=PATTERN (such as edge_TO_FROM) or links=PATTERN (such as link_TO)")
    return said


class _Reader:
    """Reads the words of one declaration."""

    def __init__(self, space: SearchSpace, setting: str, words: Words):
        self.space, self.setting, self.words = space, setting, words
        self.edges, self.links, self.nodes = (self._genes(word) for word in PLACEHOLDERS)
        self.zero, self.identity = _strings(words.zero), _strings(words.identity)
        operating = [self._gene(name) for name in (*self.edges, *self.nodes)]
        options = {str(option) for gene in operating for option in gene.options}
        linking = {str(option) for name in self.links for option in self._gene(name).options}
        if both := {*self.zero} & {*self.identity}:
            raise ConfigError(f"{setting}: option {min(both)} cannot be zero and identity")
        for word, known in (("zero", options | linking), ("identity", options)):
            for option in getattr(self, word):
                if option not in known:
                    raise ConfigError(
                        f"{setting}.{word}={option} is not an option of an operation: {', '.join(sorted(options))}"
                    )
        self.names = tuple(sorted(options - {*self.zero, *self.identity}))

    def graph(self) -> Graph:
        """The graph: nodes are renumbered, and an operation of a node is an edge from what it reads to its result."""
        starts = {start for _, start in self.edges.values() if start is not None}
        starts |= {node for name in self.links for node in self._meanings(name) if node >= 0}
        reading = {to for to, _ in (*self.edges.values(), *self.links.values())}
        operations = self._operations_of_nodes(reading)
        numbers: dict[int, int] = {}
        for count, node in enumerate(sorted(reading | starts)):
            numbers[node] = count + sum(to <= node for to in operations)
        edges = [
            Edge(numbers[to] - (to in operations), self._always(name, numbers[start]), self._operation(name))
            for name, (to, start) in self.edges.items()
            if start is not None
        ]
        for name, (to, _) in self.links.items():
            source = Choice(self.space.names.index(name), tuple(numbers.get(node, -1) for node in self._meanings(name)))
            edges.append(Edge(numbers[to] - (to in operations), source, self._always(name, IDENTITY)))
        edges += [
            Edge(numbers[to], self._always(name, numbers[to] - 1), self._operation(name)) for to, name in operations.items()
        ]
        output = self.words.output or ("unread" if self.links else "last")
        joined = () if output == "last" else tuple(numbers[node] for node in sorted(reading))
        inputs = tuple(numbers[node] for node in sorted(starts - reading))
        edges.sort(key=lambda edge: edge.target)
        return Graph(self.space, self.names, inputs, tuple(edges), joined, output == "unread", self.words.features)

    def _operations_of_nodes(self, reading: set[int]) -> dict[int, str]:
        """The gene of each node's operation."""
        operations: dict[int, str] = {}
        for name, (to, _) in self.nodes.items():
            if to not in reading:
                raise ConfigError(f"{self.setting}.nodes: {name!r} is the operation of node {to}, which reads nothing")
            if to in operations:
                raise ConfigError(f"{self.setting}.nodes: {operations[to]!r} and {name!r} are operations of one node, {to}")
            operations[to] = name
        return operations

    def _always(self, name: str, number: int) -> Choice:
        """The same number for every option of a gene."""
        return Choice(self.space.names.index(name), (number,) * len(self._gene(name).options))

    def _genes(self, word: str) -> dict[str, tuple[int, int | None]]:
        """The genes that a word names, each with the node where it ends and, of an edge, the one where it starts."""
        said, wanted = getattr(self.words, word), PLACEHOLDERS[word]
        if isinstance(said, Mapping):
            return {name: self._place(word, name, str(place)) for name, place in said.items()}
        found: dict[str, tuple[int, int | None]] = {}
        for pattern in _strings(said):
            missing = [holder for holder in wanted if holder not in pattern]
            if missing:
                raise ConfigError(f"{self.setting}.{word}={pattern} must have {missing[0]} in place of a node's number")
            form = re.escape(pattern)
            for holder in wanted:
                form = form.replace(holder, rf"(?P<{holder}>\d+)", 1)
            matches = {name: match for name in self.space.names if (match := re.fullmatch(form, name))}
            if not matches:
                known = ", ".join(self.space.names)
                raise ConfigError(f"{self.setting}.{word}={pattern} matches no gene; there are: {known}")
            for name, match in matches.items():
                start = int(match["FROM"]) if "FROM" in wanted else None
                found[name] = self._upward(word, name, int(match["TO"]), start)
        return found

    def _place(self, word: str, name: str, place: str) -> tuple[int, int | None]:
        """The nodes of a mapping's value: `FROM-TO` of an edge, else `TO`."""
        self._gene(name)
        form = r"(\d+)-(\d+)" if word == "edges" else r"()(\d+)"
        match = re.fullmatch(form, place.strip())
        if match is None:
            wanted = "FROM-TO, such as 0-2" if word == "edges" else "the number of a node"
            raise ConfigError(f"{self.setting}.{word}.{name} must be {wanted}, not {place!r}")
        return self._upward(word, name, int(match[2]), int(match[1]) if match[1] else None)

    def _upward(self, word: str, name: str, to: int, start: int | None) -> tuple[int, int | None]:
        if start is not None and start >= to:
            raise ConfigError(
                f"{self.setting}.{word}: {name!r} is an edge from node {start} to node {to}; nodes must be numbered so that "
                f"edges lead to greater numbers"
            )
        return to, start

    def _gene(self, name: str) -> Gene:
        if name not in self.space.names:
            raise ConfigError(
                f"{self.setting} names {name!r}, which is not a gene; there are: {', '.join(self.space.names)}"
            )
        return self.space.genes[self.space.names.index(name)]

    def _operation(self, name: str) -> Choice:
        """The operation that each option of a gene stands for."""
        special = {**dict.fromkeys(self.zero, ZERO), **dict.fromkeys(self.identity, IDENTITY)}
        known = special | {operation: i + 2 for i, operation in enumerate(self.names)}
        return Choice(self.space.names.index(name), tuple(known[str(option)] for option in self._gene(name).options))

    def _meanings(self, name: str) -> tuple[int, ...]:
        """The nodes that the options of a link stand for, -1 where there is none."""
        to, _ = self.links[name]
        nodes = []
        for option in map(str, self._gene(name).options):
            if option not in self.zero and (not option.isdigit() or int(option) >= to):
                raise ConfigError(
                    f"{self.setting}.links: option {option} of {name!r} must be the number of a node before node {to}"
                )
            nodes.append(-1 if option in self.zero else int(option))
        return tuple(nodes)


def _strings(said: Any) -> tuple[str, ...]:
    """One word, or a list of words."""
    several: Sequence[Any] = said if isinstance(said, list | tuple) else (said,)
    return tuple(map(str, several))
