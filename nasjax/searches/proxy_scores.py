"""Proxies as inputs: before a search, random architectures are scored, and predictors read what models of the scores say."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from nasjax.tactics import Problem, Scores

ROWS = 128
"""How many architectures are scored, at most: each score costs a gradient."""

CHUNK = 16
"""How many are scored before progress is shown."""


class Scoring(NamedTuple):
    """How many scores of `planned` are known, and the last one."""

    done: int
    planned: int
    last: float


def with_proxies(problem: Problem, names: Sequence[str]) -> Generator[Scoring, None, Problem]:
    """The problem with scores of random architectures by each named proxy, the same for every seed; yields after each chunk.

    Raises ConfigError, before anything is scored, for names of no proxy.
    """
    scores = [problem.proxy(name, "proxies") for name in names]
    archs = np.unique(problem.sample(jax.random.key(0), ROWS), axis=0)
    columns, planned = [], len(archs) * len(scores)
    for i, score in enumerate(scores):
        known: list[float] = []
        for start in range(0, len(archs), CHUNK):
            known += np.asarray(score(archs[start : start + CHUNK])).tolist()
            yield Scoring(i * len(archs) + len(known), planned, known[-1])
        columns.append(known)
    return replace(problem, scores=Scores(archs, np.array(columns, np.float64).T))
