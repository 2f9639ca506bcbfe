"""Networks drawn as blocks: what a search writes for the drawing, and what the page shows."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from tables import GENES, write_table
from toy_transformer import ToyTransformer

import nasjax
from nasjax import supernets
from nasjax.hardware.costs import cost_tables
from nasjax.outline import OutlineBlock
from nasjax.report.cards import relative_to_largest
from nasjax.report.drawings import draw_network, drawing_style, legend, undrawn_genes
from nasjax.report.page import page
from nasjax.runs.reader import read_run
from nasjax.runs.space_summary import SpaceSummary, read_space
from nasjax.supernets.outlines import outline


def abstract(name):
    """A super-network of that name without weights."""
    return nnx.eval_shape(lambda: supernets.create(name))


def decoded(space, arch):
    """An architecture as run folders have it: the options, as text, of the genes that exist."""
    return {name: str(option) for name, option in space.decode(np.asarray(arch)).items()}


def mobilenet_layers(net, genes):
    return sum(int(genes[f"depth_{i + 1}"]) if len(net.config.depths[i]) > 1 else 1 for i in range(len(net.config.depths)))


def resnet_layers(net, genes):
    stem = 2 + (genes["depth_stem"] != "0")
    return stem + sum(net.config.least_depths) + sum(int(genes[f"depth_{i}"]) for i in (1, 2, 3, 4)) + 1


@pytest.mark.parametrize(
    "name, layers, units",
    [
        ("digits", mobilenet_layers, [2, 2, 2]),
        ("ofa_mbv3_d234_e346_k357_w1.0", mobilenet_layers, [4] * 5),
        ("ofa_proxyless_d234_e346_k357_w1.3", mobilenet_layers, [4] * 5 + [1]),
        ("ofa_resnet50", resnet_layers, [1, 1, 1, 4, 4, 6, 4, 1]),
    ],
)
def test_as_many_blocks_are_on_as_the_architecture_has_layers(name, layers, units):
    net = abstract(name)
    blocks = outline(net.stages)
    numbers = [block.unit for block in blocks]
    assert numbers == sorted(numbers) and [numbers.count(unit) for unit in dict.fromkeys(numbers)] == units
    space = SpaceSummary({gene.name: tuple(map(str, gene.options)) for gene in net.space.genes}, blocks)
    rng = np.random.default_rng(0)
    for _ in range(20):
        arch = net.space.canonical(rng.integers(0, net.space.counts).astype(np.int32))
        genes = decoded(net.space, arch)
        html = draw_network(space, drawing_style(space), genes)
        assert html.count('class="block k') == layers(net, genes) == sum(block.is_on(genes) for block in blocks)
        assert html.count('class="block ') == len(blocks)
        # A block that is there has all its genes, one that is not has none but those that others share.
        assert all(set(block.genes) <= set(genes) for block in blocks if block.is_on(genes))


def test_the_genes_of_an_encoder_and_a_decoder_shape_their_layers():
    blocks = outline(nnx.eval_shape(lambda: ToyTransformer(rngs=nnx.Rngs(0))).stages)
    encoder = [block for block in blocks if block.kind == "EncoderLayer"]
    assert [block.genes for block in encoder] == [(f"encoder_heads_{i}", f"encoder_hidden_{i}") for i in (1, 2)]
    assert [block.gate for block in encoder] == [None, ("encoder_depth", 2)]
    assert len({block.unit for block in encoder}) == 1


def test_a_block_without_a_kernel_is_coloured_by_its_words():
    blocks = (OutlineBlock("Cell", 0, ("op", "width")), OutlineBlock("Cell", 0, ("op_2", "width_2"), ("depth", 2.0)))
    options = {
        "depth": ("1", "2"),
        "op": ("conv", "skip"),
        "width": ("8", "16"),
        "op_2": ("conv", "skip"),
        "width_2": ("8",),
    }
    space = SpaceSummary(options | {"resolution": ("32", "64")}, blocks)
    html = draw_network(space, drawing_style(space), {"depth": "1", "op": "skip", "width": "8", "resolution": "32"})
    assert re.findall(r'class="block (\w+)"(?: style="--size:([\d.]+)")?', html) == [("k4", "0.5"), ("off", "")]
    assert "op" in legend(space, drawing_style(space)) and "width" in legend(space, drawing_style(space))
    assert undrawn_genes(space) == ["resolution"]


def test_the_legend_says_what_height_and_colour_are():
    for name, words in (
        ("digits", "Colour: kernel 3 5. Height: expand, of the largest. Outlines: layers switched off."),
        ("ofa_resnet50", "Height: width or width × expand, of the largest. Outlines: layers switched off."),
    ):
        net = abstract(name)
        space = SpaceSummary({gene.name: tuple(map(str, gene.options)) for gene in net.space.genes}, outline(net.stages))
        assert " ".join(re.sub("<.*?>", "", legend(space, drawing_style(space))).split()) == words


@pytest.mark.slow
def test_a_search_writes_what_the_drawing_needs(tiny_run, tiny_net):
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert summary["options"] == {gene.name: list(gene.options) for gene in tiny_net.space.genes}
    assert len(summary["blocks"]) == 4
    largest = tiny_net.space.largest()
    assert summary["largest"]["genes"] == tiny_net.space.decode(largest)
    costs = {name: table.exact(largest[None]).item() for name, table in cost_tables(tiny_net).items()}
    assert summary["largest"]["costs"] == costs and set(costs) == {"macs", "params", "model_size", "memory"}
    found = read_run(tiny_run)
    assert found.space == read_space(summary, []) and len(found.space.blocks) == 4


def test_a_space_of_words_or_an_incomplete_table_has_no_largest_network(tmp_path):
    table = Path(write_table(tmp_path / "whole.csv"))
    lines = table.read_text().splitlines()
    (tmp_path / "holes.csv").write_text("\n".join(line for line in lines if not line.startswith("3,7,6,7,6")) + "\n")
    (tmp_path / "words.csv").write_text("op,acc\nconv,1\nskip,2\n")
    for name, genes, known in (("whole", GENES, True), ("holes", GENES, False), ("words", ("op",), False)):
        net = supernets.create("tabular", table=str(tmp_path / f"{name}.csv"), genes=genes)
        nasjax.search(net, objectives=["max:acc"], tactic="random", evaluations=2, run=tmp_path / name)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["blocks"] == [] and (summary["largest"] is not None) == known
        assert ("Largest network" in page(read_run(tmp_path / name))) == known


def test_a_metric_is_shown_relative_to_the_largest_network_where_that_is_known(tiny_run, tmp_path):
    found = read_run(tiny_run)
    assert (
        relative_to_largest(found, "macs", 0.41 * found.space.costs["macs"], found.space.costs["macs"])
        == "41 % of the largest"
    )
    assert relative_to_largest(found, "macs", 3.0, 1000.0) == "0.3 % of the largest"
    assert relative_to_largest(found, "accuracy_top1", 79.2, 80.0) == "−0.8 points against the largest"
    assert relative_to_largest(found, "accuracy_top1", 80.0, 80.0) == "as the largest"
    assert relative_to_largest(found, "accuracy_top1", 80.0, None) == "largest: not measured in this run"
    assert "accuracy_top1 not measured in this run" in page(found)
    # The same run with the largest network among its evaluations.
    for file in tiny_run.glob("*.[cjy]*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tiny_run / "evaluations.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    beaten = next(i for i, row in enumerate(rows) if int(row["index"]) not in [network.index for network in found.front])
    rows[beaten] |= dict(found.space.largest) | {"accuracy_top1": "12.5"}
    with (tmp_path / "evaluations.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "accuracy_top1 12.50 · macs" in page(read_run(tmp_path))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s["options"].pop("depth_1"), "lacks 'depth_1'"),
        (lambda s: s.pop("blocks"), "lacks 'blocks'"),
        (lambda s: s["blocks"][0]["genes"].append("other"), "'other', which is not among 'genes'"),
        (lambda s: s["blocks"][0].update(gate=["depth_1"]), "damaged"),
        (lambda s: s["blocks"][0].update(gate=["other", 2]), "lacks 'other'"),
        (lambda s: s["options"].update(depth_1=["one", "two"]), "not numbers"),
        (lambda s: s["largest"]["genes"].update(kernel_1_1=9), "not among its options"),
        (lambda s: s["largest"].pop("costs"), "lacks 'costs'"),
        (lambda s: s["options"].update(kernel_1_1=[1]), "not among its options"),
    ],
)
def test_a_damaged_summary_is_named_in_one_line(tiny_run, tmp_path, change, words):
    for file in tiny_run.glob("*.[cjy]*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    summary = json.loads((tiny_run / "summary.json").read_text())
    change(summary)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError) as caught:
        read_run(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "summary.json")) and words in message and "\n" not in message
