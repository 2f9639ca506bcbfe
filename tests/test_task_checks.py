"""What a task of one's own may get wrong is one line before anything is measured; its key knows all that it computes."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nasjax.errors import ConfigError
from nasjax.evaluation import EVALUATORS
from nasjax.objectives import Objective
from nasjax.space import Gene
from nasjax.supernets import Stage, SuperNet
from nasjax.supernets.elastic import Dense
from nasjax.tasks import Split, Task


class Linear(Stage):
    genes = (Gene("width", (1, 2)),)

    def __init__(self, *, rngs):
        self.hidden, self.output = Dense(3, 2, rngs=rngs), Dense(2, 1, rngs=rngs)

    def forward(self, x, choice, statistics):
        return self.output(self.hidden(x, self.option(choice, 0))), {}


class Regression(Task):
    objectives = (Objective("mse", "min", range=(0.0, 1.0)),)
    factor = 1.0

    def statistics(self, outputs, targets):
        return jnp.stack([jnp.ones(len(targets)), (outputs[:, 0] - targets) ** 2], 1)

    def metrics(self, totals):
        return {"mse": self.factor * totals[1] / totals[0]}

    def loss(self, outputs, targets, teacher=None):
        return (outputs[:, 0] - (targets if teacher is None else teacher[:, 0])) ** 2


def split(number=8, **changes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(number, 3)).astype(np.float32)
    return Split(**({"inputs": x, "targets": x.sum(1)} | changes))


def task(kind=Regression, **splits):
    return kind(**({name: split() for name in ("train", "validation", "test")} | splits))


@pytest.fixture(scope="module")
def net():
    return SuperNet([Linear(rngs=nnx.Rngs(0))], input_shape=(3,))


def changed(**functions):
    return type("Changed", (Regression,), functions)


def test_a_sound_task_passes(net):
    task().check(net)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda: task(changed(statistics=lambda self, o, t: (o - t) ** 2)), "1 columns|2 columns|statistics must be"),
        (lambda: task(changed(statistics=lambda self, o, t: o[:, 0] - t)), "statistics must be .examples, stats."),
        (lambda: task(changed(statistics=lambda self, o, t: o["logits"])), "statistics failed .TypeError"),
        (lambda: task(changed(on_host=True, statistics=lambda self, o, t: np.zeros(len(t)))), "statistics must be"),
        (lambda: task(changed(metrics=lambda self, totals: {"rmse": totals[1]})), "returns no number 'mse'"),
        (lambda: task(changed(metrics=lambda self, totals: {"mse": totals})), "returns no number 'mse'"),
        (lambda: task(changed(metrics=lambda self, totals: {"mse": float(totals[1])})), "metrics failed"),
        (lambda: task(changed(outputs=lambda self, run, x: run(x)["a"])), "outputs failed .TypeError"),
        (lambda: task(changed(loss=lambda self, o, t, teacher=None: (o - t) ** 2)), "loss must be .examples,."),
        (lambda: task(train=split(inputs=[[1.0, 2.0, 3.0]] * 8)), "inputs and targets of train must be arrays"),
        (lambda: task(test=split(targets=np.zeros(5, np.float32))), "the arrays of test must have one number of examples"),
        (lambda: task(validation=split(0)), "the arrays of validation must have one number of examples, above 0"),
        (lambda: task(train=split(inputs=np.zeros((8, 5), np.float32))), "its inputs are float32 of .examples, 5."),
    ],
)
def test_mistakes_are_one_line(net, made, line):
    with pytest.raises(ConfigError, match=line) as raised:
        made().check(net)
    assert "\n" not in str(raised.value)


def test_a_constructor_of_ones_own_is_as_good(net):
    class Own(Regression):
        def __init__(self):
            self.train = self.validation = self.test = split()

    own = Own()
    own.check(net)
    assert own.origin["name"] == "in memory"
    assert EVALUATORS["masked"](batch=4).bind(net, own)(net.space.all_architectures())["mse"].shape == (2,)


def test_the_digest_knows_class_settings_code_and_data():
    class Scaled(Regression):
        factor = 0.1

    class Same(Regression):
        factor = 0.1  # Another class.

    tasks = [
        task(),
        task(Scaled),
        task(Same),
        task(train=split(9)),
        task().changed(origin={"name": "own", "arguments": {"a": 1}}),
    ]
    other = task()
    other.factor = 2.0
    assert len({one.digest() for one in [*tasks, other]}) == 6
    assert task().digest() == task().digest()


def test_augmentation_is_for_images(net):
    with pytest.raises(ConfigError, match="augmentation=flip is for images"):
        norms = SuperNet([Normed(rngs=nnx.Rngs(0))], input_shape=(3,))
        EVALUATORS["masked"](batch=4, augmentation="flip").bind(norms, task())


class Normed(Stage):
    def __init__(self, *, rngs):
        from nasjax.supernets.elastic import BatchNorm

        self.norm, self.output = BatchNorm(3), Dense(3, 1, rngs=rngs)

    def forward(self, x, choice, statistics):
        x, moments = self.norm(x, statistics.get("norm"))
        return self.output(x), {"norm": moments}
