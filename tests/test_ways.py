"""Every way of evaluating a population answers as the extracted networks do; what is shared and kept changes nothing."""

import logging
from dataclasses import dataclass, replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_evaluation import calibrated_by_hand
from tiny import architectures, close, easy_task, scrambled, tiny_network
from toy_transformer import SOURCE, TARGET, WORDS, ToyTransformer

from nasjax import supernets
from nasjax.evaluation import EVALUATORS, STRATEGIES, measure
from nasjax.evaluation.prefix import SKIPPED, Cache, _walk
from nasjax.evaluation.programs import in_turn
from nasjax.evaluation.switch import Switched
from nasjax.evaluation.totals import Totals
from nasjax.objectives import Objective
from nasjax.supernets.extract import extract
from nasjax.supernets.families.resnet import ResNetConfig
from nasjax.tasks import ImageClassification, Split

SETTINGS = {"batch": 4, "calibration_examples": 8, "chunk": 2}
PICTURES, CLASSES = 6, 3


@dataclass(eq=False)
class Logits(ImageClassification):
    """A task whose metrics are the logits themselves, of every image; an image's label is its number."""

    objectives = tuple(Objective(f"{i}_{j}", "min") for i, j in product(range(PICTURES), range(CLASSES)))

    def statistics(self, outputs, targets):
        mine = jax.nn.one_hot(targets, PICTURES)[:, :, None]
        return (mine * outputs[:, None, :CLASSES]).reshape(len(outputs), -1)

    def metrics(self, totals):
        return {objective.name: total / PICTURES for objective, total in zip(self.objectives, totals, strict=True)}


def task_of(size=7, calibrating=8):
    """Two batches to score, the second filled up; two to calibrate."""
    rng = np.random.default_rng(3)
    train, rest = (rng.normal(size=(number, size, size, 3)).astype(np.float32) for number in (calibrating, PICTURES))
    numbered = Split(rest, np.arange(PICTURES, dtype=np.int32))
    return Logits(
        Split(train, np.zeros(calibrating, np.int32)),
        numbered,
        replace(numbered, inputs=rest[::-1].copy()),
        classes=PICTURES,
    )


def mobilenet():
    """Blocks that are alike, one of them always there, so that a loop runs over them; others that are not."""
    changes = {"widths": (8, 12), "strides": (1, 2), "depths": ((1, 2, 3), (0, 1)), "kernels": (1, 3), "expands": (1, 2)}
    return tiny_network(2, **{**changes, "depths": ((1, 2, 3), (1,)), "squeeze_excite": (False, True)})


def resnet():
    """Widths that neighbours read, a stem's block that may be left out."""
    settings = {"stem_width": 16, "widths": (16, 32), "strides": (1, 2), "least_depths": (1, 1), "depths": (0, 1)}
    config = ResNetConfig(image_size=7, classes=CLASSES, expands=(0.25, 0.5), multipliers=(0.5, 1.0), **settings)
    return scrambled(nnx.eval_shape(config.create), 4)


NETS = {"mobilenet": mobilenet, "resnet": resnet}


def extracted_logits(net, archs, task, calibration):
    """(pop, images, classes): extracted one by one, calibrated by hand."""
    found = []
    for arch in archs:
        arch = tuple(map(int, arch))
        small = extract(net, arch, jax.tree.map(jnp.asarray, calibrated_by_hand(net, arch, calibration)))
        graph, weights = nnx.split(small)
        run = jax.jit(lambda weights, images, graph=graph: nnx.merge(graph, weights)(images))
        found.append(np.asarray(run(weights, task.validation.inputs))[:, :CLASSES])
    return np.stack(found)


def logits(found):
    """(pop, images, classes) out of what an evaluator of `Logits` found: a metric is the mean over all images."""
    return (
        np.stack([found[objective.name] for objective in Logits.objectives], axis=1).reshape(-1, PICTURES, CLASSES)
        * PICTURES
    )


@pytest.fixture(scope="module", params=["mobilenet", pytest.param("resnet", marks=pytest.mark.slow)])
def case(request):
    """A network, architectures (largest, smallest, one between), a task and the logits of the extracted networks."""
    net, task = NETS[request.param](), task_of()
    archs = np.array(architectures(net.space, 1), np.int32)
    archs = np.asarray(net.space.canonical(archs))
    calibration = EVALUATORS["masked"](**SETTINGS).calibration(net, task)
    return net, archs, task, extracted_logits(net, archs, task, calibration)


MORE = {"": {}, "at once": {"at_once": True}, "all scored at a time": {"scoring_batch": 6}}


@pytest.fixture(scope="module", params=[*STRATEGIES, "masked, at once", "prefix, all scored at a time"])
def bound(request, case):
    name, _, more = request.param.partition(", ")
    return EVALUATORS[name](**SETTINGS, **MORE[more]).bind(case[0], case[2])


def test_a_population_is_the_extracted_networks(case, bound):
    """With duplicates, larger than a chunk, and one alone; to 1e-4 of the logits' scale."""
    _, archs, _, wanted = case
    rows = [1, 0, 2, 0, 1]
    assert bound.chunk == 2 < len(rows)
    scale = np.abs(wanted).max()
    assert np.ptp(wanted, axis=0).max() > 0.05 * scale
    for asked in (rows, [2]):
        np.testing.assert_allclose(logits(measure(bound, archs[asked])), wanted[asked], rtol=0, atol=1e-4 * scale)


def test_results_do_not_depend_on_company(case, bound):
    _, archs, _, _ = case
    alone = [bound(archs[i : i + 1]) for i in range(2)]
    for rows in ([0, 1], [1, 0], [1, 1]):
        for name, values in bound(archs[rows]).items():
            np.testing.assert_array_equal(values, [alone[i][name][0] for i in rows])


@pytest.mark.slow
def test_statistics_are_those_of_the_masked_network(case, bound):
    net, archs, task, _ = case
    arch = tuple(map(int, archs[2]))
    close(
        bound.statistics(arch), calibrated_by_hand(net, arch, EVALUATORS["masked"](**SETTINGS).calibration(net, task)), 2e-5
    )


def test_the_key_does_not_name_the_way(case, bound):
    net, _, task, _ = case
    other = EVALUATORS["masked"](**{**SETTINGS, "chunk": 5, "memory_gb": 3.0}).bind(net, task)
    assert bound.context == other.context
    assert replace(EVALUATORS["switch"](**SETTINGS), seed=1).bind(net, task).context != other.context


@pytest.mark.slow
def test_another_split_and_back(case, bound):
    """Nothing kept of one split's images is taken for another's."""
    _, archs, _, wanted = case
    atol = 1e-4 * np.abs(wanted).max()
    turned = wanted[:1, ::-1]
    test = bound.on("test")
    for evaluator, expected in ((bound, wanted[:1]), (test, turned), (bound, wanted[:1]), (test, turned)):
        np.testing.assert_allclose(logits(evaluator(archs[:1])), expected, rtol=0, atol=atol)


# -- memory ----------------------------------------------------------------------------------------------------------------


class Full:
    """A way that is out of memory with more than `most` networks at once."""

    def __init__(self, way, most, words="RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes"):
        self.way, self.most, self.words, self.asked = way, most, words, []

    def totals(self, archs, *arguments):
        self.asked.append(len(archs))
        if len(archs) > self.most:
            raise jax.errors.JaxRuntimeError(self.words)
        number = np.full(len(archs), 41.0)
        return Totals(number, np.stack([number, archs[:, 0], archs[:, 1]], axis=1), np.zeros((len(archs), 3, 3)))

    def forget(self):
        pass


@pytest.fixture
def small():
    net = tiny_network(widths=(8,), strides=(1,), depths=((1, 2),), kernels=(3,), expands=(1, 2, 3), squeeze_excite=(False,),
                       activations=("relu",))  # fmt: skip
    return net, EVALUATORS["masked"](**{**SETTINGS, "chunk": 8}).bind(net, easy_task())


def test_a_device_out_of_memory_halves_the_chunk_for_good_and_says_so(small, caplog):
    net, bound = small
    bound._strategy = way = Full(bound._strategy, 2)
    archs = np.asarray(net.space.sample(jax.random.key(0), 7))
    with caplog.at_level(logging.WARNING):
        found = bound(archs)
    assert way.asked == [7, 4, 2, 2, 2, 1]
    told = [record.getMessage().split(" sub-networks")[0] for record in caplog.records]
    assert told == ["out of memory with 8", "out of memory with 4"]
    np.testing.assert_allclose(found["accuracy_top1"] / 100 * 41, archs[:, 0], rtol=1e-12)
    assert bound.chunk == 8  # what may be asked for stays
    way.asked.clear()
    bound(archs[:3])
    assert way.asked == [2, 1]


def test_one_network_that_does_not_fit_and_other_errors_are_raised(small):
    net, bound = small
    archs = np.asarray(net.space.sample(jax.random.key(0), 4))
    for way in (Full(None, 0), Full(None, 2, "INTERNAL: something else")):
        bound._strategy, bound._rows_at_once = way, 4
        with pytest.raises(jax.errors.JaxRuntimeError, match=way.words[:8]):
            bound(archs)
        assert way.asked[-1] == (1 if way.most == 0 else 4)


# -- switch ----------------------------------------------------------------------------------------------------------------


def test_switch_compiles_once_and_runs_only_the_rows_that_count():
    ran = []

    def one(x):
        jax.debug.callback(lambda x: ran.append(int(x)), x)
        return x * 2, jnp.ones(3)

    run = jax.jit(lambda number, rows: in_turn(one, number, rows))
    for number in (0, 2, 4):
        ran.clear()
        doubled, ones = run(np.int32(number), jnp.arange(1, 5))
        jax.effects_barrier()
        assert sorted(ran) == list(range(1, number + 1))
        np.testing.assert_array_equal(doubled, [2 * (i + 1) if i < number else 0 for i in range(4)])
        np.testing.assert_array_equal(ones.sum(1), [3 if i < number else 0 for i in range(4)])
    assert run._cache_size() == 1


def test_equal_blocks_are_one_loop():
    groups = [group for group, _, _ in Switched(mobilenet()).groups]
    assert groups == [[0], [1], [2, 3, 4], [5], [6]]


@pytest.mark.slow
def test_a_carry_that_is_no_image_is_switched_too():
    """The transformer's dict of tokens and two encoder outputs, with the width of neighbours."""
    net = scrambled(nnx.eval_shape(lambda: ToyTransformer(rngs=nnx.Rngs(0))), 1)
    rng = np.random.default_rng(0)
    words = {
        "source": jnp.asarray(rng.integers(0, WORDS, (3, SOURCE)), jnp.int32),
        "target": jnp.asarray(rng.integers(0, WORDS, (3, TARGET)), jnp.int32),
    }
    graph, weights = nnx.split(net)

    def switched(weights, arch):
        net = nnx.merge(graph, weights)
        return Switched(net).forward(words, arch, net.stored())[0]

    run = jax.jit(switched)
    for arch in architectures(net.space, 1):
        alone = jax.jit(lambda weights, arch=arch: nnx.merge(graph, weights)(words, arch))(weights)
        close(run(weights, jnp.asarray(arch, jnp.int32)), alone)


# -- prefix ----------------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes_first():
    kept = Cache(100)
    for name in "abc":
        kept.put(name, np.zeros(5))  # 40 bytes each
    assert (kept.get("a"), kept.bytes) == (None, 80)
    assert kept.get("b") is not None
    kept.put("d", {"x": np.zeros(4), "y": np.zeros(1)})
    assert kept.get("c") is None and kept.get("b") is not None
    kept.put("e", np.zeros(13))  # too large: nothing makes room for it
    kept.put("b", np.zeros(7))
    assert kept.bytes == 96 and kept.get("e") is None and list(kept.values) == ["d", "b"]


@pytest.mark.parametrize("limit", [0, 200, 10**6])
def test_a_walk_takes_each_beginning_once_and_ends_with_every_path(limit):
    """A carry that is the way gone, on random tries; kept from one population to the next, it is not walked again."""
    rng = np.random.default_rng(limit)
    kept, before = Cache(limit), set()
    for _ in range(5):
        drawn = rng.integers(-1, 2, (6, 4))
        paths = sorted({tuple((int(i),) for i in row) for row in drawn})
        stepped = []

        def step(path, depth, carry, stepped=stepped):
            assert list(carry) == [choice for (choice,) in path[:depth] if (choice,) != SKIPPED]
            stepped.append(path[: depth + 1])
            return np.append(carry, path[depth][0])

        ends = dict(_walk(paths, lambda: np.zeros(0, int), step, kept, len))
        assert list(ends) == paths
        for path, carry in ends.items():
            assert list(carry) == [choice for (choice,) in path if (choice,) != SKIPPED]
        needed = {path[: i + 1] for path in paths for i in range(4) if path[i] != SKIPPED}
        assert len(stepped) == len(set(stepped))
        assert kept.bytes <= limit
        if limit == 0:
            assert set(stepped) == needed
        elif limit == 10**6:
            assert set(stepped) == needed - {begun for begun in before if len(begun) < 4}
        before |= needed


def test_siblings_cost_only_what_differs_and_no_cache_answers_alike(case):
    """Of a network known but for its last choice only the stages behind it run, in every batch."""
    net, archs, task, _ = case
    config = EVALUATORS["prefix"](**SETTINGS)
    bound, without = config.bind(net, task), replace(config, cache_gb=0.0).bind(net, task)
    without._strategy._programs = bound._strategy._programs  # compiled once
    bound(archs[:1])
    sibling = archs[:1].copy()
    sibling[0, -1] = 0  # the last gene: of the last block, or its width
    asked = []
    programs = bound._strategy._programs
    run = programs.run

    def counting(function, depth, *arguments):
        asked.append(depth)
        return run(function, depth, *arguments)

    programs.run = counting
    found = bound(sibling)
    paths = [bound._strategy._path(arch) for arch in (archs[0], sibling[0])]
    first = next(i for i, (a, b) in enumerate(zip(*paths, strict=True)) if a != b)
    assert 0 < first < len(paths[0]) - 1 and min(asked) == first
    assert len(asked) == 4 * (len(paths[0]) - first)  # two batches calibrate, two are scored
    for name, values in without(sibling).items():
        np.testing.assert_array_equal(values, found[name])


def test_all_programs_of_stages_are_compiled_before_they_run(case):
    """None only when it is needed, which would be one by one."""
    net, archs, task, _ = case
    bound = EVALUATORS["prefix"](**SETTINGS).bind(net, task)
    programs = bound._strategy._programs
    lowered, ahead = [], []
    lower, together = programs._lowered, programs.compile_together
    programs._lowered = lambda *of: lowered.append(of) or lower(*of)

    def counting(*of):
        before = len(lowered)
        together(*of)
        ahead.append(len(lowered) - before)

    programs.compile_together = counting
    bound(archs[:2])
    assert len(lowered) == sum(ahead) > 0 and len(programs._programs) == len(lowered)
    known = len(lowered)
    bound(archs[:2])
    assert len(lowered) == known


@pytest.mark.slow
def test_a_cache_too_small_for_everything_answers_alike(case):
    """What was dropped for one batch and not for another is counted once."""
    net, _, task, _ = case
    archs = np.asarray(net.space.sample(jax.random.key(5), 6))
    config = EVALUATORS["prefix"](**{**SETTINGS, "chunk": 8})
    without = replace(config, cache_gb=0.0).bind(net, task)
    wanted = without(archs)
    bound = replace(config, cache_gb=6e-5).bind(net, task)
    bound._strategy._programs = without._strategy._programs  # compiled once
    for rows in ([0, 1, 2, 3], [4, 0], [5, 1, 2, 3]):
        for name, values in bound(archs[rows]).items():
            np.testing.assert_array_equal(values, wanted[name][rows])
    way = bound._strategy
    assert way._statistics_cache.bytes and any(kept.bytes for kept in way._calibration_caches.values())
    assert (
        way._statistics_cache.bytes
        + sum(k.bytes for d in (way._calibration_caches, way._scoring_caches) for k in d.values())
        <= 6e4
    )


def test_a_negative_cache_is_refused():
    with pytest.raises(ValueError, match=r"evaluator\.cache_gb must be at least 0, not -1"):
        EVALUATORS["prefix"](cache_gb=-1)


# -- full size -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50"])
def test_all_ways_answer_as_the_extracted_networks(name):
    """To 1e-4 of the logits' scale, or twice what one rounding of the images changes; the same class first, but for images
    whose margin is below twice that, which are few.

    Moments of few values amplify rounding: by 4 images of 32 pixels, 1e-6 of an image is 1 % of ResNet50's logits; by 32 of
    64 pixels, 1e-7 of one is 1.2e-4 of their scale.
    """
    settings = {**SETTINGS, "batch": 32, "calibration_examples": 32}
    net = supernets.create(name) if name == "digits" else supernets.create(name, image_size=64)
    side, _, channels = net.input_shape
    task = task_of(side, calibrating=32)
    if channels == 1:
        parts = (replace(part, inputs=part.inputs[..., :1]) for part in (task.train, task.validation, task.test))
        task = replace(task, **dict(zip(("train", "validation", "test"), parts, strict=True)))
    archs = np.asarray(net.space.canonical(np.array(architectures(net.space, 1), np.int32)))

    def answers(task):
        return extracted_logits(net, archs, task, EVALUATORS["masked"](**settings).calibration(net, task))

    def rounded(part):
        draws = np.random.default_rng(0).uniform(-1e-7, 1e-7, part.inputs.shape)
        return replace(part, inputs=(part.inputs * (1 + draws)).astype(np.float32))

    wanted = answers(task)
    again = answers(replace(task, train=rounded(task.train), validation=rounded(task.validation), test=rounded(task.test)))
    tolerance = max(1e-4 * np.abs(wanted).max(), 2 * np.abs(again - wanted).max())
    ordered = np.sort(wanted, axis=2)
    narrow = ordered[..., -1] - ordered[..., -2] < 2 * tolerance
    assert narrow.sum() <= 1
    for way in STRATEGIES:
        found = logits(measure(EVALUATORS[way](**settings).bind(net, task), archs))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=way)
        assert ((found.argmax(2) == wanted.argmax(2)) | narrow).all(), way
