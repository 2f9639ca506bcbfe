"""Ways of evaluating a population, as command lines of the benchmarks name them: `prefix`, `masked+vmapped=loop`."""

import yaml

from nasjax.evaluation import EVALUATORS


def evaluator(way, **settings):
    """The settings of an evaluator, `NAME+SETTING=VALUE+…`; those that are named there come before `settings`."""
    name, *pairs = way.split("+")
    named = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
    return EVALUATORS[name](**settings | named)
