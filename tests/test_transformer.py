"""The Transformer family: every way to run a sub-network gives the same, and its layers do what others of its kind do."""

import re
from dataclasses import replace

import hat_golden as hat
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_transformer as tiny
from flax import nnx
from tiny_transformer import stepped

from nasjax.errors import ConfigError
from nasjax.evaluation.switch import Switched
from nasjax.hardware import latency_table
from nasjax.hardware.costs import cost_tables
from nasjax.hardware.latency_table import branches
from nasjax.hardware.measurement import compiled, timed_function
from nasjax.jaxprs import inner_jaxprs
from nasjax.supernets import checkpoints, transformer_layers
from nasjax.supernets.extract import extract
from nasjax.supernets.families import transformer
from nasjax.supernets.families.transformer import DecoderEmbed
from nasjax.supernets.hat.lists import from_hat
from nasjax.supernets.runner import Subnet
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet
from nasjax.supernets.transformer_layers import END, PAD, KeysValues, attend, dropped, with_room
from nasjax.training import SandwichConfig

CLOSE = {"rtol": 0, "atol": 5e-6}


@pytest.fixture(scope="module")
def net():
    return tiny.CONFIG.create(0)


@pytest.fixture(scope="module")
def archs(net):
    space = net.space
    return np.stack([space.largest(), space.smallest(), *np.asarray(space.sample(jax.random.key(0), 4))])


def static(archs):
    return [tuple(map(int, arch)) for arch in archs]


@pytest.mark.slow
def test_an_extracted_network_that_attends_to_few_encoder_layers_is_switched_as_any_other(net):
    """Its memory is shorter than what a gated stage passes on."""
    largest = net.space.decode(net.space.largest())
    few = {name: min(gene.options) for name, gene in zip(net.space.names, net.space.genes, strict=True) if "cross_l" in name}
    arch = tuple(map(int, net.space.encode(largest | few | {"decoder_width": min(tiny.CONFIG.decoder_widths)})))
    extracted, inputs = extract(net, arch), tiny.inputs()
    traced = jnp.zeros(len(extracted.space.genes), jnp.int32)
    run = jax.jit(lambda arch: stepped(Subnet(Switched(extracted), arch, extracted.stored()), inputs))
    np.testing.assert_allclose(run(traced), net(inputs, arch), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["right", "left"])
def test_masked_switched_extracted_and_stepped_logits_are_the_static_ones(net, archs, side):
    inputs = tiny.inputs(side=side)
    masked = jax.jit(jax.vmap(lambda arch: net.forward(inputs, arch, net.stored())[0]))(jnp.asarray(archs))
    switched = jax.jit(lambda arch: stepped(Subnet(Switched(net), arch, net.stored()), inputs))
    for row, arch in enumerate(static(archs)):
        wanted = net(inputs, arch)
        assert np.abs(wanted).max() > 1
        extracted = extract(net, arch)
        np.testing.assert_allclose(masked[row], wanted, **CLOSE)
        np.testing.assert_allclose(switched(jnp.asarray(archs[row])), wanted, **CLOSE)
        np.testing.assert_array_equal(extracted(inputs), wanted)
        traced = jnp.zeros(len(extracted.space.genes), jnp.int32)
        np.testing.assert_allclose(extracted.forward(inputs, traced, extracted.stored())[0], wanted, **CLOSE)
        np.testing.assert_allclose(stepped(Subnet(net, arch, net.stored()), inputs), wanted, **CLOSE)


def test_padding_changes_nothing_on_either_side(net, archs):
    right, left = tiny.inputs(), tiny.inputs(side="left")
    longer = right | {"source": jnp.pad(right["source"], ((0, 0), (0, 3)), constant_values=PAD)}
    logits = jax.jit(net, static_argnums=1)
    for arch in static(archs)[:3]:
        np.testing.assert_allclose(logits(right, arch), logits(left, arch), **CLOSE)
        np.testing.assert_allclose(logits(longer, arch), logits(right, arch), **CLOSE)


def test_beams_that_are_exchanged_continue_their_own_beginnings(net, archs):
    """Each step's logits are those of the beam's own words at once."""
    arch, inputs, beams, time = static(archs)[0], tiny.inputs(), 3, 4
    run, rng = Subnet(net, arch, net.stored()), np.random.default_rng(1)
    whole, step = jax.jit(net, static_argnums=1), jax.jit(run.step)
    carry = with_room(jax.jit(run.encode)(inputs), beams, time)
    words = np.full((4, beams, 0), END, np.int32)
    for _ in range(time):
        new = rng.integers(4, tiny.WORDS, (4, beams, 1)).astype(np.int32)
        words = np.concatenate([words, new], axis=2)
        logits, carry = step(jnp.asarray(new[..., 0]), carry)
        for beam in range(beams):
            at_once = whole({"source": inputs["source"], "target": jnp.asarray(words[:, beam])}, arch)
            np.testing.assert_allclose(logits[:, beam], at_once[:, -1], **CLOSE)
        parents = rng.integers(0, beams, (4, beams))
        words = np.take_along_axis(words, parents[..., None], axis=1)
        visible = np.take_along_axis(np.asarray(carry["cache"]["visible"]), parents[..., None], axis=1)
        carry = carry | {"cache": carry["cache"] | {"visible": jnp.asarray(visible)}}


def test_gradients_of_masked_units_are_zero(net, archs):
    """Exactly those weights that extraction leaves out."""
    arch = static(archs)[1]
    graph, weights = nnx.split(net)

    def loss(weights):
        return jnp.square(nnx.merge(graph, weights).forward(tiny.inputs(), jnp.asarray(archs[1]), None)[0]).sum()

    gradients = nnx.merge(graph, jax.jit(jax.grad(loss))(weights))
    small = extract(net, arch)
    layers = [stage for stage in gradients.stages if isinstance(stage, transformer.EncoderFeedForward)]
    extracted = [stage for stage in small.stages if isinstance(stage, transformer.EncoderFeedForward)]
    hidden, width = extracted[0].feed.hidden.kernel.shape[1], extracted[0].feed.hidden.kernel.shape[0]
    kernel = layers[0].feed.hidden.kernel[...]
    assert np.abs(kernel[:width, :hidden]).max() > 0
    assert not np.any(kernel[:, hidden:])
    assert not np.any(kernel[width:])
    assert not np.any(gradients.stages[-3].feed.hidden.kernel[...])  # a decoder layer beyond the depth


def test_shared_embeddings_are_one_tensor_with_one_gradient(net, archs):
    _, weights = nnx.split(net)
    tables = [path for path, _ in nnx.to_flat_state(weights) if path[-1] == "table"]
    assert len(tables) == 1
    apart = replace(tiny.CONFIG, shared_embeddings=False).create(0)
    assert sum(path[-1] == "table" for path, _ in nnx.to_flat_state(nnx.state(apart))) == 3
    for stage in apart.stages:
        for module in (getattr(stage, "embed", None) and stage.embed.embed, getattr(stage, "scores", None)):
            if module:
                module.table[...] = net.stages[0].embed.embed.table[...]
    small = extract(net, static(archs)[1])
    (embed,) = (stage for stage in small.stages if isinstance(stage, DecoderEmbed))
    assert small.stages[-1].scores.table is embed.embed.embed.table
    params = cost_tables(net)["params"].exact(archs[1:2])[0]
    assert params == sum(
        leaf[...].size for leaf in jax.tree.leaves(nnx.state(small), is_leaf=lambda x: hasattr(x, "get_value"))
    )


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_softmax_of_scaled_products_head_by_head(heads):
    rng = np.random.default_rng(0)
    query, keys, values = (rng.normal(size=(2, time, 8)).astype(np.float32) for time in (3, 5, 5))
    visible = rng.random((2, 3, 5)) < 0.7
    visible[..., 0] = True
    wanted = np.zeros((2, 3, 8))
    for example in range(2):
        for head in range(heads):
            own = slice(head * 8 // heads, (head + 1) * 8 // heads)
            scores = query[example][:, own] @ keys[example][:, own].T / np.sqrt(8 / heads)
            weights = np.where(visible[example], np.exp(scores), 0)
            wanted[example][:, own] = weights / weights.sum(1, keepdims=True) @ values[example][:, own]
    memory = KeysValues(*(jnp.asarray(part.swapaxes(1, 2)) for part in (keys, values)))
    for number in (heads, jnp.int32(heads)):
        found = attend(jnp.asarray(query), memory, jnp.asarray(visible), number, 4)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


SINUSOIDS = transformer_layers.sinusoids

MISTAKES = {
    "positions from 1": lambda patch: patch.setattr(transformer, "places", lambda tokens: jnp.cumsum(tokens != PAD, 1) - 1),
    "positions of the sampled width": lambda patch: patch.setattr(
        transformer_layers, "sinusoids", lambda number, width: SINUSOIDS(number, 512).repeat(2, 1)[:, :width]
    ),
    "scale of the wider heads": lambda patch: patch.setattr(
        transformer_layers, "attend", lambda q, *others: attend(q * 1.2, *others)
    ),
    "layer norms without weights": lambda patch: patch.setattr(
        transformer_layers.LayerNorm, "__call__", lambda self, x, width: jax.nn.standardize(x, epsilon=1e-5)
    ),
    "an older encoder layer": lambda patch: patch.setattr(
        transformer.Memory, "forward", _reading_in_another_order(transformer.Memory.forward)
    ),
}  # fmt: skip


def _reading_in_another_order(forward):
    return lambda self, carry, choice, statistics: (
        carry | {"memory": forward(self, carry | {"encoded": carry["encoded"][::-1]}, choice, statistics)[0]["memory"]},
        {},
    )


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_golden_values_see_mistakes(monkeypatch, mistake, row=6):
    net = hat.network(hat.WMT)
    arch = static(hat.archs(hat.WMT, net))[row]
    MISTAKES[mistake](monkeypatch)
    inputs = hat.inputs(hat.WMT, "right")
    logits = np.asarray(net(inputs, arch) * (inputs["target"] != PAD)[..., None])[..., :: hat.STEP]
    assert hat.deviation(logits, hat.golden(hat.WMT)["logits_right"][row]) > 1e-3


def test_hats_lists_are_read_with_and_without_layers_beyond_the_depth():
    net = nnx.eval_shape(hat.config(hat.WMT).create)
    lists = hat.lists(hat.WMT, 3)
    depth = lists["decoder_layer_num"]
    short = {
        key: value[:depth] if key.startswith("decoder") and isinstance(value, list) else value
        for key, value in lists.items()
    }
    parts = {part: {key: value for key, value in lists.items() if key.startswith(part)} for part in ("encoder", "decoder")}
    parts["encoder"]["encoder_layer_num"] = 6
    assert from_hat(net, lists) == from_hat(net, short) == from_hat(net, parts)
    with pytest.raises(ConfigError, match="decoder_arbitrary_ende_attn cannot hold 3; allowed: -1, 1, 2"):
        from_hat(net, lists | {"decoder_arbitrary_ende_attn": [3] * 6})
    with pytest.raises(ConfigError, match="encoder_ffn_embed_dim must be a list of 6 numbers"):
        from_hat(net, lists | {"encoder_ffn_embed_dim": [1024]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": (3, 4)}, r"supernet.heads=\[3, 4\]: each must divide the greatest, and inner_width=8"),
        ({"cross_layers": (1, 4)}, "there are only 3 encoder layers"),
        ({"target_words": 30}, "encoder and decoder must be equal in words and greatest width"),
        ({"length": 0}, "supernet.length must be a whole number of at least 1, not 0"),
    ],
)
def test_invalid_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(tiny.CONFIG, **changes)


def test_a_checkpoint_with_other_embeddings_or_vocabulary_is_refused():
    tensors = hat.published(hat.WMT)
    other = tensors | {"decoder.embed_tokens.weight": tensors["encoder.embed_tokens.weight"] + 1}
    with pytest.raises(
        ConfigError, match=r"differs from 'encoder.embed_tokens.weight': set supernet.shared_embeddings=false"
    ):
        checkpoints.fill(hat.config(hat.WMT).create, other, "net.pt")
    with pytest.raises(ConfigError, match=r"'encoder.embed_tokens.weight' has shape \(512, 640\), \(500, 640\) is expected"):
        checkpoints.fill(replace(hat.config(hat.WMT), source_words=500, target_words=500).create, tensors, "net.pt")


def test_untrained_transformers_are_not_distilled_without_a_word(net):
    fresh, trainer = tiny.CONFIG.create(0), SandwichConfig()
    assert trainer.advice(fresh) == ""  # Whether weights are as they were initialised is known of created networks.
    fresh.untrained = "digest"
    assert "learns next to nothing by distillation: train its largest" in trainer.advice(fresh)
    assert SandwichConfig(distillation=False).advice(fresh) == ""
    assert trainer.advice(extract(fresh, (0,) * len(fresh.space.genes))) == ""


def conditionals(jaxpr):
    """All conditionals of a jaxpr, inner ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield equation
        else:
            for inner in inner_jaxprs(equation.params):
                yield from conditionals(inner)


def test_switched_steps_pass_only_what_a_stage_changes_through_its_branches(net, archs):
    """Memory and all caches pass by: a branch would copy them."""
    inputs = tiny.inputs()
    run = Subnet(Switched(net), jnp.asarray(archs[0]), net.stored())
    carry = run.encode(inputs)
    jaxpr = jax.make_jaxpr(run.step)(inputs["target"][:, :1], carry)
    shapes = [out.aval.shape for equation in conditionals(jaxpr.jaxpr) for out in equation.outvars]
    assert carry["memory"][0].keys.shape not in shapes
    assert carry["cache"]["layers"][0].keys.shape not in shapes


@pytest.mark.slow
def test_the_program_of_a_timed_stage_returns_only_what_the_stage_computes(net):
    """One output of feed-forward and cross-attention, of self-attention new keys and values, too: no cache is copied."""
    found = branches(net.shapes(5, beams=3), batch=2).distinct.values()
    outputs = {}
    for kind in (transformer.DecoderFeedForward, transformer.DecoderAttention, transformer.CrossAttention):
        branch = next(one for one in found if type(one.network.stages[0]) is kind)
        outputs[kind] = len(compiled(branch.network, branch.carry, jax.devices()[0]).run())
    assert list(outputs.values()) == [1, 3, 1]


class Noting(Stage):
    """A repeated stage that notes each of its runs."""

    repeated = True

    def __init__(self, note):
        self.note = note

    def forward(self, carry, choice, statistics):
        jax.debug.callback(self.note, carry)
        return carry + 1, {}


@pytest.mark.parametrize("steps", [1, 7])
def test_a_stage_of_a_decoder_is_timed_over_all_its_runs(steps):
    """Each gets what the one before returned."""
    noted = []
    net = SuperNet([Noting(lambda value: noted.append(float(value[0, 0])))], (1,))
    branch = latency_table._branch(net.stages[0], (), jax.ShapeDtypeStruct((1, 1), jnp.float32), steps)
    (found,) = compiled(branch.network, branch.carry, jax.devices()[0]).run()
    jax.effects_barrier()
    np.testing.assert_allclose(noted, noted[0] + np.arange(steps), rtol=1e-6)
    assert float(found[0, 0]) == pytest.approx(noted[0] + steps)


DECODER = ("DecoderEmbed", "DecoderAttention", "CrossAttention", "DecoderFeedForward", "Remember", "WordScores")


def entry_operations(text):
    """What the entry computation of a compiled program does, loops aside, by the names of JAX."""
    entry = text[text.index("\nENTRY ") :]
    return {name.rpartition("/")[2] for name in re.findall(r'op_name="([^"]*)"', entry[: entry.index("\n}")])}


def test_nothing_that_a_stage_of_a_decoder_computes_is_taken_out_of_the_loop_over_its_runs(net):
    """By the compiled program of each: matrix products, layer norms and updates of caches are in the loop."""
    found = branches(net.shapes(5, beams=3), batch=2).distinct.values()
    for kind in DECODER:
        branch = next(one for one in found if type(one.network.stages[0]).__name__ == kind)
        weights = nnx.split(branch.network)[1]
        program = jax.jit(timed_function(branch.network)).lower(weights, branch.carry).compile().as_text()
        computed = {"dot_general", "rsqrt", "dynamic_update_slice", "gather", "exp", "sqrt"}
        assert computed & set(re.findall(r'op_name="[^"]*/(\w+)"', program)), kind
        assert not computed & entry_operations(program), kind


def test_equal_layers_share_the_branches_of_the_latency_table(net):
    """Widths, heads (2), hidden widths (3), attended layers (3), depths (3): whatever the number of layers."""
    embeds, encoder, memory, depth, decoder = 2 + 2, 2 * 2 + 2 * 3, 2 * 3, 3 + 3, 2 * 2 + 2 * 2 * 3 + 2 * 3
    remember, scores = 1, 2
    found = branches(net.shapes(5), batch=1).distinct
    assert len(found) == embeds + encoder + memory + depth + decoder + remember + scores


def test_only_training_drops_at_random_and_less_of_narrow_networks(net, archs):
    key = jax.random.key_data(jax.random.key(0))
    largest, smallest = static(archs)[:2]
    inputs = tiny.inputs()
    for arch in (largest, smallest):
        plain = net(inputs, arch)
        first, again = (net.forward(inputs | {"dropout": key}, arch, None)[0] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - plain).max() > 0.1
        masked = net.forward(inputs | {"dropout": key}, jnp.asarray(arch, jnp.int32), None)[0]
        assert masked.shape == plain.shape
    x = jnp.ones((40, 50, 8))
    for width, share in ((8, 0.3), (4, 0.15)):
        _, found = dropped({"dropout": key}, x, 0.3, width, 8)
        np.testing.assert_allclose((found == 0).mean(), share, atol=0.02)
        np.testing.assert_allclose(found.mean(), 1, atol=0.02)
    never = replace(tiny.CONFIG, dropout=0.0).create(0)
    np.testing.assert_array_equal(never.forward(inputs | {"dropout": key}, largest, None)[0], never(inputs, largest))
