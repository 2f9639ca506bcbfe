"""Every training method chooses the sub-networks, teachers and phases that its paper says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_transformer
from flax import nnx
from tiny import CONFIG, architectures, close, easy_task, scrambled, step_of

from nasjax.errors import ConfigError
from nasjax.hardware.costs import cost_tables
from nasjax.supernets.extract import extract
from nasjax.supernets.families.resnet import ResNetConfig
from nasjax.tasks.divergences import adaptive_alpha
from nasjax.training import AlphaNetConfig, AttentiveConfig, PlainConfig, ProgressiveConfig, SandwichConfig
from nasjax.training.attentive import POOL
from nasjax.training.base import FIXED
from nasjax.training.loop import Training
from nasjax.training.losses import losses_of, step_loss
from nasjax.training.progressive import PUBLISHED, dimensions_of, shared_out

RESNET = ResNetConfig(image_size=16, classes=3, stem_width=16, widths=(32, 64), strides=(1, 2), least_depths=(1, 1),
                      depths=(0, 1), expands=(0.25, 0.5))  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return easy_task((120, 60, 6), noise=0.4)


@pytest.fixture(scope="module")
def net():
    return scrambled(nnx.eval_shape(lambda: CONFIG.create(0)), 3)


def batch_of(task, number=24):
    return jnp.asarray(task.train.inputs[:number]), jnp.asarray(task.train.targets[:number])


# -- attentive sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["best_up", "worst_up"])
def test_attentive_sampling_trains_the_best_or_the_worst_of_equal_size(net, task, attention):
    config = AttentiveConfig(attention=attention, random_subnets=2, candidates=4)
    inputs, targets = batch_of(task)
    macs = cost_tables(net)["macs"]
    step = step_of(net, jax.random.key(5))._replace(
        losses=jax.jit(lambda archs: losses_of(net, task, inputs, targets, archs)), macs=macs.estimate
    )
    chosen = config.subnets(step)
    sandwich = SandwichConfig(random_subnets=2).subnets(step)
    assert chosen.static == sandwich.static and chosen.weights == sandwich.weights
    assert (chosen.static_teachers, chosen.traced_teacher) == ((None, 0), 0)
    for key, arch in zip(jax.random.split(step.key, 2), np.asarray(chosen.traced), strict=True):
        pool = np.asarray(net.space.sample_raw(key, POOL))
        nearest = pool[np.argsort(np.abs(macs.exact(pool) - macs.exact(pool[:1])), kind="stable")[:4]]
        losses = np.asarray(losses_of(net, task, inputs, targets, jnp.asarray(nearest)))
        best = losses.argmin() if attention == "best_up" else losses.argmax()
        assert arch.tolist() == nearest[best].tolist()


@pytest.mark.slow
def test_the_losses_that_candidates_are_compared_by_are_those_on_the_targets(net, task):
    inputs, targets = batch_of(task)
    archs = architectures(net.space, 3)
    found = losses_of(net, task, inputs, targets, jnp.asarray(archs, jnp.int32))
    for arch, loss in zip(archs, found, strict=True):
        logits = jax.jit(lambda inputs, arch=arch: net.forward(inputs, arch, None)[0])(inputs)
        wanted = -jax.nn.log_softmax(logits)[jnp.arange(24), targets].mean()
        assert float(loss) == pytest.approx(float(wanted), rel=1e-4)


# -- AlphaNet ---------------------------------------------------------------------------------------------------------------


def alpha_divergence(p, q, alpha):
    """By its definition, in float64."""
    if alpha == 1:
        return (p * np.log(p / q)).sum(-1)
    return ((q * (p / q) ** alpha).sum(-1) - 1) / (alpha * (alpha - 1))


def test_the_adaptive_divergence_is_the_greater_of_two_alpha_divergences():
    """Of probabilities so near that nothing is clipped, the gradient is that of the definition, by finite differences."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 50, 4)) * 0.3

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    def wanted(student):
        return np.maximum(*(alpha_divergence(softmax(teacher), softmax(student), alpha) for alpha in (-1, 1)))

    found = adaptive_alpha(jnp.asarray(student, jnp.float32), jnp.asarray(teacher, jnp.float32))
    np.testing.assert_allclose(found, wanted(student), atol=2e-5)
    both = [alpha_divergence(softmax(teacher), softmax(student), alpha) for alpha in (-1, 1)]
    assert 0 < (both[0] > both[1]).mean() < 1
    gradient = jax.grad(lambda s: adaptive_alpha(s, jnp.asarray(teacher, jnp.float32)).sum())(
        jnp.asarray(student, jnp.float32)
    )
    for i in range(4):
        bump = 1e-5 * np.eye(4)[i]
        np.testing.assert_allclose(gradient[:, i], (wanted(student + bump) - wanted(student - bump)) / 2e-5, atol=1e-4)


def test_a_student_far_off_has_a_bounded_gradient():
    """Unclipped, the ratio of probabilities would be e^40."""
    student, teacher = jnp.asarray([[20.0, -20.0]]), jnp.asarray([[-20.0, 20.0]])
    gradient = jax.grad(lambda s: adaptive_alpha(s, teacher).sum())(student)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 10
    far = jnp.asarray([[100.0, 0.0]]), jnp.asarray([[0.0, 100.0]])
    assert np.isfinite(adaptive_alpha(*far)).all()
    assert np.isfinite(jax.grad(lambda s: adaptive_alpha(s, far[1]).sum())(far[0])).all()


def test_alphanet_distils_by_its_divergence(net, task):
    inputs, targets = batch_of(task)
    config = AlphaNetConfig(random_subnets=1)
    subnets = config.subnets(step_of(net, jax.random.key(2)))
    logits = [net.forward(inputs, arch, None)[0] for arch in subnets.static]
    logits.append(net.forward(inputs, tuple(map(int, subnets.traced[0])), None)[0])
    losses = [-jax.nn.log_softmax(logits[0])[jnp.arange(24), targets].mean()]
    losses += [adaptive_alpha(one, logits[0]).mean() for one in logits[1:]]
    found = step_loss(net, task, inputs, targets, subnets, config.divergence())
    assert float(found) == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_a_loss_of_one_s_own_without_a_divergence_is_refused_where_one_is_needed(net, task):
    own = task.changed()
    own.loss = lambda outputs, targets, teacher=None: task.loss(outputs, targets, teacher)
    Training(SandwichConfig(batch=24), net, own, jax.random.key(0))
    with pytest.raises(ConfigError, match="has a divergence of its own, which the loss of the task in memory does not take"):
        Training(AlphaNetConfig(batch=24), net, own, jax.random.key(0))


# -- progressive shrinking --------------------------------------------------------------------------------------------------


def test_genes_belong_to_the_dimensions_of_once_for_all(net):
    kinds = dict(zip([gene.name for gene in net.space.genes], dimensions_of(net), strict=True))
    assert {name.split("_")[0]: kind for name, kind in kinds.items()} == {
        "depth": "depth", "kernel": "kernel", "expand": "expand"}  # fmt: skip
    resnet = nnx.eval_shape(lambda: replace(RESNET, resolutions=(8, 16)).create(0))
    kinds = dict(zip([gene.name for gene in resnet.space.genes], dimensions_of(resnet), strict=True))
    assert {name.split("_")[0]: kind for name, kind in kinds.items()} == {
        "resolution": "", "depth": "depth", "width": "width", "expand": "expand"}  # fmt: skip


def test_phases_open_kernels_then_depths_then_widths(net):
    """Depths of the tiny network have two options: one phase opens both."""
    net.untrained = "fresh"
    phases = ProgressiveConfig(epochs=590).phases(net)
    names = [(PUBLISHED[phase.kind].dimension, phase.epochs) for phase in phases]
    shares = np.array([180, 120, 120, 25, 120])
    assert [name for name, _ in names] == ["", "kernel", "depth", "expand", "expand"]
    assert sum(number for _, number in names) == 590
    assert np.abs(np.array([number for _, number in names]) - 590 * shares / shares.sum()).max() < 1
    counts, dimensions = np.array(net.space.counts), np.array(dimensions_of(net))
    opened = [{d for d in set(dimensions) if (np.array(p.least)[dimensions == d] == 0).all()} for p in phases]
    assert opened == [set(), {"kernel"}, {"kernel", "depth"}, {"kernel", "depth"}, {"kernel", "depth", "expand"}]
    assert (np.array(phases[3].least)[dimensions == "expand"] == counts[dimensions == "expand"] - 2).all()
    assert (np.array(phases[0].least) == counts - 1).all()
    assert [phase.rate for phase in phases] == [1.0, 0.37, 0.092, 0.031, 0.092]
    short = [phase.rate for phase in ProgressiveConfig(epochs=59).phases(net)]
    np.testing.assert_allclose(short, np.array([1.0, 0.37, 0.092, 0.031, 0.092]) ** 0.1)
    config = ProgressiveConfig()
    assert [config.fixes_teacher(phases, i) for i in range(5)] == [False, True, False, False, False]


def test_a_trained_network_is_the_teacher_from_the_start(net):
    net.untrained = None
    config = ProgressiveConfig(epochs=20)
    phases = config.phases(net)
    assert PUBLISHED[phases[0].kind].dimension == "kernel" and sum(phase.epochs for phase in phases) == 20
    assert [config.fixes_teacher(phases, i) for i in range(len(phases))] == [True, False, False, False]


def test_networks_and_epochs_that_do_not_do_are_one_line(net):
    net.untrained = "fresh"
    with pytest.raises(ConfigError, match=r"trainer\.largest=0 needs a trained network as the teacher"):
        ProgressiveConfig(largest=0.0).phases(net)
    with pytest.raises(ConfigError, match=r"trainer.epochs=4 is too few: progressive shrinking has 5 phases here"):
        ProgressiveConfig(epochs=4).phases(net)
    alone = extract(net, tuple(map(int, net.space.largest())))
    with pytest.raises(ConfigError, match="this network has none that is elastic: trainer=plain trains it"):
        ProgressiveConfig().phases(alone)


def test_epochs_are_shared_out_whole():
    assert shared_out(10, np.array([0.0, 0.5, 0.25, 0.25])) in ([0, 5, 3, 2], [0, 5, 2, 3])
    assert shared_out(3, np.array([0.98, 0.01, 0.01])) == [1, 1, 1]
    assert shared_out(100, np.array([0.98, 0.01, 0.01])) == [98, 1, 1]


def test_sub_networks_have_options_of_their_phase_only_and_learn_from_the_fixed_teacher(net, task):
    net.untrained = "fresh"
    phase = ProgressiveConfig(epochs=50).phases(net)[3]
    step = step_of(net, jax.random.key(1), True, phase.kind)._replace(least=jnp.asarray(phase.least, jnp.int32))
    subnets = ProgressiveConfig().subnets(step)
    assert subnets.static == () and subnets.traced_teacher == FIXED and len(subnets.traced) == 4
    drawn = np.concatenate(
        [ProgressiveConfig().subnets(step._replace(key=key)).traced for key in jax.random.split(jax.random.key(0), 50)]
    )
    least = np.asarray(net.space.canonical(np.tile(phase.least, (len(drawn), 1))))
    active = np.asarray(net.space.active(drawn))
    assert (drawn >= np.where(active, np.array(phase.least), 0)).all() and least.shape == drawn.shape
    assert {tuple(column) for column in np.where(active, drawn, -1).T if len(set(column)) < 2} == set()
    # The loss by hand: targets and the teacher's outputs count alike.
    inputs, targets = batch_of(task)
    fixed = jax.random.normal(jax.random.key(3), (24, 3))
    logits = jax.vmap(lambda arch: net.forward(inputs, arch, None)[0])(subnets.traced)
    of_targets = -jax.nn.log_softmax(logits)[:, jnp.arange(24), targets].mean()
    of_teacher = -(jax.nn.softmax(fixed) * jax.nn.log_softmax(logits)).sum(-1).mean()
    found = step_loss(net, task, inputs, targets, subnets, None, fixed)
    assert float(found) == pytest.approx(float(of_targets + of_teacher) / 2, rel=1e-4)


# -- all of them ------------------------------------------------------------------------------------------------------------

SMALL = replace(CONFIG, widths=(8,), strides=(2,), depths=((1, 2),), kernels=(3, 5), expands=(1, 2), activations=("relu",),
                squeeze_excite=(True,), first_width=0, final_expand=0)  # fmt: skip


@pytest.mark.slow
def test_progressive_shrinking_goes_on_from_any_state_and_teaches_small_networks(task):
    """The teacher stays what the largest was; the first phase trains nothing else."""
    net = nnx.jit(lambda: SMALL.create(0))()
    net.untrained = "fresh"
    config = ProgressiveConfig(epochs=8, batch=24, learning_rate=1e-2, shrinking_rate=1.0)
    training = Training(config, net, task, jax.random.key(5))
    states = [state for state in training.run(training.begin()) if training.ends_epoch(state)]
    assert [phase.epochs for phase in training.phases] == [3, 1, 2, 2] or sum(p.epochs for p in training.phases) == 8
    first = training.phases[0].epochs
    for state in states[first:]:
        close(jax.tree.leaves(state.teacher), jax.tree.leaves(states[first - 1].weights), 0)
    begun = nnx.to_flat_state(training._next_phase(states[first - 1], 1).weights)
    transforms = [leaf for path, leaf in begun if "transforms" in path]
    assert transforms and all((leaf[...] == jnp.eye(9)).all() for leaf in transforms)
    for begun in (states[first - 1], states[first]):
        *_, last = training.run(begun)
        close(jax.tree.leaves(last.weights), jax.tree.leaves(states[-1].weights), 0)
    smallest = tuple(map(int, net.space.smallest()))
    inputs, targets = batch_of(task, 120)

    def loss(state):
        trained = training.network(state)
        logits = jax.jit(lambda inputs: trained.forward(inputs, smallest, None)[0])(inputs)
        return float(-jax.nn.log_softmax(logits)[jnp.arange(120), targets].mean())

    assert loss(states[-1]) < 0.7 * loss(states[first - 1])


def test_plain_training_trains_the_largest_alone_and_by_a_teacher_if_there_is_one(net, task):
    inputs, targets = batch_of(task)
    subnets = PlainConfig().subnets(step_of(net, jax.random.key(0)))
    assert subnets.static == (tuple(map(int, net.space.largest())),) and subnets.static_teachers == (None,)
    taught = PlainConfig().subnets(step_of(net, jax.random.key(0), True))
    assert taught.static_teachers == (FIXED,)
    fixed = jax.random.normal(jax.random.key(3), (24, 3))
    logits = net.forward(inputs, subnets.static[0], None)[0]
    of_targets = -jax.nn.log_softmax(logits)[jnp.arange(24), targets].mean()
    of_teacher = -(jax.nn.softmax(fixed) * jax.nn.log_softmax(logits)).sum(-1).mean()
    assert float(step_loss(net, task, inputs, targets, subnets)) == pytest.approx(float(of_targets), rel=1e-5)
    found = step_loss(net, task, inputs, targets, taught, None, fixed)
    assert float(found) == pytest.approx(float(of_targets + of_teacher) / 2, rel=1e-5)


# -- sorted units -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, RESNET], ids=["mobilenet_v3", "resnet"])
def test_sorted_units_change_no_sub_network_that_was_trained(config):
    """Those whose options are at least `least`; others change, since they get more important units."""
    net = scrambled(nnx.eval_shape(lambda: config.create(0)), 3)
    x = jax.random.normal(jax.random.key(0), (4, *net.input_shape))
    counts = np.array(net.space.counts)
    wide = np.array([d in ("expand", "width") for d in dimensions_of(net)])
    for spare in (1, 2):
        least = np.where(wide, np.maximum(counts - spare, 0), 0)
        sorted_net = nnx.clone(net)
        sorted_net.sort_units(tuple(map(int, least)))
        archs = np.asarray(net.space.canonical(np.stack([np.maximum(least, counts - 1), least])))
        for arch in archs:
            static = tuple(map(int, arch))
            before, after = (jax.jit(lambda x, n=n, a=static: n.forward(x, a, n.stored())[0])(x) for n in (net, sorted_net))
            close(after, before, 1e-4)
        smallest = (0,) * len(counts)
        before, after = (n.forward(x, smallest, n.stored())[0] for n in (net, sorted_net))
        assert spare > 1 or not np.allclose(before, after, atol=1e-3)


def test_units_are_sorted_by_the_weights_that_read_them(net):
    sorted_net = nnx.clone(net)
    sorted_net.sort_units(tuple(count - 1 for count in net.space.counts))
    blocks = [stage for stage in sorted_net.stages if hasattr(stage, "hidden_widths")]
    for block in blocks:
        importance = np.abs(np.asarray(block.project.conv.kernel[...])).sum((0, 1, 3))
        assert (np.diff(importance) <= 0).all()
    sorted_net.sort_units(tuple(0 for _ in net.space.counts))


@pytest.mark.slow
def test_sorted_feed_forward_units_change_no_translation():
    """The largest sub-network's; the smallest gets other units."""
    net = tiny_transformer.CONFIG.create(0)
    sorted_net, inputs = nnx.clone(net), tiny_transformer.inputs()
    kinds = dict(zip(net.space.names, dimensions_of(net), strict=True))
    assert {kinds[name] for name in kinds if "width" in name} == {"width"}
    assert {kinds[name] for name in kinds if "hidden" in name or "heads" in name} == {"expand"}
    sorted_net.sort_units(tuple(count - 1 for count in net.space.counts))
    largest, smallest = (tuple(map(int, arch)) for arch in (net.space.largest(), net.space.smallest()))
    np.testing.assert_allclose(sorted_net(inputs, largest), net(inputs, largest), rtol=0, atol=1e-4)
    assert not np.allclose(sorted_net(inputs, smallest), net(inputs, smallest), atol=1e-2)
    for stage in sorted_net.stages:
        if hasattr(stage, "feed"):
            importance = np.abs(np.asarray(stage.feed.output.kernel[...])).sum(1)
            assert (np.diff(importance) <= 1e-6).all()
