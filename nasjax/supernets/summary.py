"""A network as text: a line a stage, with its options and the sizes of its layers."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import jax
from flax import nnx

from nasjax.supernets.elastic import Conv, ConvNorm, Dense, recording


def summary(net: Any) -> str:
    """A super-network, or an extracted network, as text: a line a stage.

    A layer is its name, kernel, widths in → out (one where they are the same by design), stride and activation. An extracted
    network has one option a gene.
    """
    weights = sum(prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))
    sizes = " x ".join(map(str, net.input_shape))
    head = f"{type(net).__name__}: {len(net.stages)} stages, {weights:,} weights" + (f", images {sizes}" if sizes else "")
    graph, state = nnx.split(net)
    largest = tuple(map(int, net.space.largest()))
    rows: list[tuple[str, ...]] = []

    def run(state, inputs):
        """Fills `rows` while an abstract network runs: layers are sorted by the order of their calls."""
        called = nnx.merge(graph, state)
        with recording() as calls:
            answer, _ = called.forward(inputs, largest, None)
        turn = {layer: number for number, layer in enumerate(calls)}
        for i, stage in enumerate(called.stages):
            genes = " ".join(f"{gene.name}={'|'.join(map(str, gene.options))}" for gene in stage.reads)
            layers = sorted(_layers(stage, turn), key=lambda layer: layer[0])
            rows.append((str(i), type(stage).__name__, genes, ", ".join(words for _, words in layers)))
        return answer

    jax.eval_shape(run, state, net.example(net.host(largest)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join([head, *lines])


def _layers(module: Any, turn: Mapping[int, int], place: str = "") -> Iterator[tuple[int, str]]:
    """Every layer with its turn; weights outside our layers by their shapes, last."""
    for name, part in vars(module).items():
        here = f"{place}{name}"
        if isinstance(part, ConvNorm):
            activation = f" {part.activation}" if part.activation != "none" else ""
            yield turn.get(id(part.conv), len(turn)), f"{here} {_convolution(part.conv)}{activation}"
        elif isinstance(part, Conv):
            yield turn.get(id(part), len(turn)), f"{here} {_convolution(part)}"
        elif isinstance(part, Dense):
            yield turn.get(id(part), len(turn)), f"{here} {part.kernel.shape[0]}→{part.kernel.shape[1]}"
        elif isinstance(part, nnx.Param):
            yield len(turn), f"{here} {'x'.join(map(str, part.shape)) or 'scalar'}"
        elif isinstance(part, nnx.Module):
            yield from _layers(part, turn, f"{here}.")


def _convolution(conv: Conv) -> str:
    kernels = "|".join(f"{size}x{size}" for size in conv.kernels)
    inputs, outputs = conv.kernel.shape[2:]
    widths = str(outputs) if conv.depthwise else f"{inputs}→{outputs}"
    return f"{kernels} {widths}" + (f" /{conv.stride}" if conv.stride > 1 else "")
