"""Two surrogates of Once-for-All MobileNetV3's accuracy, fitted to the networks that DyNAS-T really measured.

`blend`: MLP ensemble, ridge and boosted trees; `trees`: ridge and boosted trees. Neither contains a Gaussian process, the
predictor of nasjax's own tactic. `python experiments/tactics/surrogate.py FOLDER` states their cross-validated errors.
"""

import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nasjax import supernets
from nasjax.hardware.costs import cost_tables
from nasjax.searches.dynast import import_results

NAME = "ofa_mbv3_d234_e346_k357_w1.0"
NOISE = 0.02
"""Standard deviation of a measurement, in points of accuracy, as repeats in DyNAS-T's logs have it."""


def networks(folder):
    """Space, exact costs, architectures and accuracies of the logs in `folder`."""
    net = supernets.abstract(NAME)
    table = import_results(sorted(Path(folder).glob("mbnv3w10_*.csv")), net)
    columns = {name: [row[i] for row in table.rows] for i, name in enumerate(table.header)}
    rows = [{gene: columns[gene][i] for gene in table.genes if columns[gene][i] != ""} for i in range(len(table.rows))]
    archs = np.array([net.space.encode(row) for row in rows], np.int32)
    return net.space, cost_tables(net), archs, np.array(columns["accuracy_top1"])


def features(space, costs, archs):
    """Thermometers and the logarithm of multiply-accumulates, by unit and in all."""
    by_unit = np.asarray(costs["macs"].by_unit(archs), np.float64)
    return np.concatenate([np.asarray(space.features(archs)), np.log(by_unit.sum(1, keepdims=True)), np.log1p(by_unit)], 1)


def members(kind):
    ridge = make_pipeline(StandardScaler(), RidgeCV(10.0 ** np.arange(-2, 5)))
    trees = [
        HistGradientBoostingRegressor(max_iter=500, learning_rate=0.05, max_leaf_nodes=8, random_state=seed)
        for seed in range(2)
    ]
    if kind == "trees":
        return [ridge, *trees]
    mlps = [
        make_pipeline(
            StandardScaler(),
            MLPRegressor(
                hidden_layer_sizes=(64, 64),
                alpha=1.0,
                learning_rate_init=3e-3,
                max_iter=300,
                early_stopping=True,
                random_state=seed,
            ),
        )
        for seed in range(5)
    ]
    return [ridge, *trees, *mlps]


def fitted(kind, inputs, values):
    """A function of features: the mean of the members, each family of members counting the same."""
    unit = values.std()
    models = [model.fit(inputs, (values - values.mean()) / unit) for model in members(kind)]

    return partial(_mean, models, values.mean(), unit)


def _mean(models, centre, unit, inputs):
    """A function of the module, so that what is fitted can be pickled."""
    families = {}
    for model in models:
        families.setdefault(str(getattr(model, "steps", [[type(model)]])[-1][0]), []).append(model.predict(inputs))
    return centre + unit * np.mean([np.mean(each, 0) for each in families.values()], 0)


class Surrogate:
    """A super-network whose accuracy is a surrogate's, measured with noise; macs and params are exact."""

    metrics = ("accuracy_top1",)
    chunk = 64

    def __init__(self, folder, kind, noise_seed=0):
        self.space, self.costs, archs, values = networks(folder)
        self._predict = fitted(kind, features(self.space, self.costs, archs), values)
        self._seed = noise_seed
        self.context = {"surrogate": kind, "noise": noise_seed}
        self.origin = {"name": f"surrogate_{kind}"}

    def seeded(self, noise_seed):
        """The same surrogate with other noise."""
        other = object.__new__(type(self))
        other.__dict__ = {**self.__dict__, "_seed": noise_seed, "context": {**self.context, "noise": noise_seed}}
        return other

    def ranges(self):
        return {"accuracy_top1": (0.0, 100.0)}

    def rows(self):
        return None

    def true(self, archs):
        """Accuracies without noise."""
        return self._predict(features(self.space, self.costs, np.asarray(archs)))

    def __call__(self, archs):
        archs = np.asarray(archs, np.int32)
        draws = [np.random.default_rng([*sha256(a.tobytes()).digest()[:8], self._seed]).normal() for a in archs]
        return {"accuracy_top1": self.true(archs) + NOISE * np.array(draws)}


if __name__ == "__main__":
    space, costs, archs, values = networks(sys.argv[1])
    inputs = features(space, costs, archs)
    print(f"{len(archs)} networks; tenfold cross-validation")
    for kind in ("blend", "trees"):
        found = np.zeros(len(values))
        for train, test in KFold(10, shuffle=True, random_state=0).split(inputs):
            found[test] = fitted(kind, inputs[train], values[train])(inputs[test])
        error = found - values
        print(f"{kind}: rmse {np.sqrt((error**2).mean()):.4f} points, mape {100 * np.abs(error / values).mean():.4f} %, "
              f"tau {kendalltau(found, values)[0]:.4f}")  # fmt: skip
