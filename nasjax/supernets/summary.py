"""Summaries of networks as text: one line for each stage, with its options and the sizes of its layers."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import jax
from flax import nnx

from nasjax.supernets.elastic import Conv, ConvNorm, Dense
from nasjax.supernets.layer import recording
from nasjax.words import plural


def summary(net: Any) -> str:
    """A super-network or an extracted network as text, one line for each stage.

    Layers have a name, kernel, widths in → out (one for depthwise convolutions), stride and activation. In an extracted
    network every gene has one option.
    """
    weights = sum(prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))
    sizes = " x ".join(map(str, net.input_shape))
    head = f"{type(net).__name__}: {plural(len(net.stages), 'stage')}, {plural(weights, 'weight')}" + (
        f", images {sizes}" if sizes else ""
    )
    graph, state = nnx.split(net)
    largest = tuple(map(int, net.space.largest()))
    rows: list[tuple[str, ...]] = []

    def run(state, inputs):
        """Fills `rows` while the abstract network runs; layers are sorted by the order of their calls."""
        called = nnx.merge(graph, state)
        with recording() as calls:
            outputs, _ = called.forward(inputs, largest, None)
        order = {layer: position for position, layer in enumerate(calls)}
        for i, stage in enumerate(called.stages):
            genes = " ".join(f"{gene.name}={'|'.join(map(str, gene.options))}" for gene in stage.reads)
            layers = sorted(_layers(stage, order), key=lambda layer: layer[0])
            rows.append((str(i), type(stage).__name__, genes, ", ".join(text for _, text in layers)))
        return outputs

    jax.eval_shape(run, state, net.example(net.host(largest)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join([head, *lines])


def _layers(module: nnx.Module, order: Mapping[int, int], prefix: str = "") -> Iterator[tuple[int, str]]:
    """Every layer with its position in `order`; other weights by their shapes, last."""
    for name, part in vars(module).items():
        path = f"{prefix}{name}"
        if isinstance(part, ConvNorm):
            activation = f" {part.activation}" if part.activation != "none" else ""
            yield order.get(id(part.conv), len(order)), f"{path} {_convolution(part.conv)}{activation}"
        elif isinstance(part, Conv):
            yield order.get(id(part), len(order)), f"{path} {_convolution(part)}"
        elif isinstance(part, Dense):
            yield order.get(id(part), len(order)), f"{path} {part.kernel.shape[0]}→{part.kernel.shape[1]}"
        elif isinstance(part, nnx.Param):
            yield len(order), f"{path} {'x'.join(map(str, part.shape)) or 'scalar'}"
        elif isinstance(part, nnx.Module):
            yield from _layers(part, order, f"{path}.")


def _convolution(conv: Conv) -> str:
    kernels = "|".join(f"{size}x{size}" for size in conv.kernels)
    inputs, outputs = conv.kernel.shape[2:]
    widths = str(outputs) if conv.depthwise else f"{inputs}→{outputs}"
    return f"{kernels} {widths}" + (f" /{conv.stride}" if conv.stride > 1 else "")
