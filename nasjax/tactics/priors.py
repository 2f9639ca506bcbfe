"""What predictors learn from earlier searches and proxies: rows of columns measured alike, and priors of the others."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from nasjax.predictors import Prior
from nasjax.tactics.base import Measured, Problem, Values, padded_rows, relevant_rows
from nasjax.types import Mask, Population

MIN_PRIOR_ROWS, MAX_PRIOR_ROWS = 8, 256
"""A prior is fitted to at least 8 and at most 256 values of an earlier search or a proxy: more are slow and add little."""

LEAST_ALIKE, ALIKE = 3, 1e-6
"""A column is measured alike if at least so many distinct values, and all, are as before but for this share of each."""


def with_prior(problem: Problem, repeated: tuple[bool, ...] = ()) -> Problem:
    """The problem with a prior: predictors also read what models of the warm start's targets and of proxies' scores predict.

    One model is fitted to each target, best architectures first. As a feature of the new predictors, its predictions get the
    weight that agrees with the new measurements. Targets of the `repeated` columns are left out: their values are data.
    """
    inputs = problem.inputs
    models, lacking = [], []
    for archs, values, genes in _prior_targets(problem, repeated):
        rows = np.flatnonzero(np.isfinite(values))[:MAX_PRIOR_ROWS]
        if len(rows) >= MIN_PRIOR_ROWS:
            # Rows are repeated, without values: one shape, one compilation.
            column = np.full(MAX_PRIOR_ROWS, np.nan, np.float32)
            column[: len(rows)] = values[rows]
            models.append(problem.predictor.fit(inputs, np.resize(archs[rows], (MAX_PRIOR_ROWS, archs.shape[1])), column))
            lacking.append(genes)
    prior = Prior(problem.predictor, inputs, tuple(models), tuple(lacking)) if models else None
    return replace(problem, inputs=replace(inputs, prior=prior))


def _prior_targets(
    problem: Problem, repeated: tuple[bool, ...]
) -> Iterator[tuple[Population, Float[np.ndarray, " rows"], tuple[int, ...]]]:
    """Architectures, their values, and the genes that they lacked: for every metric of a warm start, and every proxy."""
    warm, scores = problem.warm, problem.scores
    if warm is not None:
        measured = [i for i, cost in enumerate(problem.costs) if cost is None]
        targets = warm.values[:, measured] if warm.targets is None else warm.targets
        lacking = warm.lacking or ((),) * targets.shape[1]
        data = [warm.values[:, i] for i in np.flatnonzero(repeated)]
        for values, genes in zip(targets.T, lacking, strict=True):
            if not any(_agree(values, column) for column in data):
                yield warm.archs, values, genes
    if scores is not None:
        yield from ((scores.archs, values, ()) for values in scores.values.T)


def read_by_predictors(state: Measured, rest: bool = False) -> Problem:
    """The problem as predictors read it now, one object for the same: without a warm start's priors of what is data.

    A column that is measured as the earlier search did is data (`training_rows`): a model predicts the values that it was
    fitted to too well to be a feature of another. With `rest` nothing of the earlier search is read.
    """
    if state.problem.warm is None:
        return state.problem
    return _read_by_predictors(state.problem, tuple(measured_alike(state).tolist()), rest)


@lru_cache(maxsize=8)
def _read_by_predictors(problem: Problem, alike: tuple[bool, ...], rest: bool) -> Problem:
    plain = replace(problem, inputs=replace(problem.inputs, prior=None))
    if rest:
        return with_prior(replace(plain, warm=None))
    return problem if problem.inputs.prior is None or not any(alike) else with_prior(plain, alike)


def measured_alike(state: Measured) -> Bool[np.ndarray, " columns"]:
    """Which columns the warm start's search measured as this one does, by the networks that both have measured.

    Accuracy is, on the same images, when the device is another. Exact columns are not.
    """
    problem = state.problem
    none = np.zeros(len(problem.costs), bool)
    if problem.warm is None:
        return none
    places = _places(problem)
    pairs = [(i, places[bytes(arch)]) for i, arch in enumerate(state.archs) if bytes(arch) in places]
    if not pairs:
        return none
    ours, theirs = state.values[[i for i, _ in pairs]], problem.warm.values[[j for _, j in pairs]]
    return np.array(
        [
            cost is None and _agree(one, other) and len(np.unique(one[np.isfinite(one) & np.isfinite(other)])) >= LEAST_ALIKE
            for cost, one, other in zip(problem.costs, ours.T, theirs.T, strict=True)
        ]
    )


@lru_cache(maxsize=4)
def _places(problem: Problem) -> Mapping[bytes, int]:
    """The row of each architecture of the warm start."""
    return {bytes(arch): i for i, arch in enumerate(np.asarray(problem.warm.archs, np.int32))}  # type: ignore[union-attr]


def _agree(one: Float[np.ndarray, " rows"], other: Float[np.ndarray, " rows"]) -> bool:
    """Whether two columns have values in the same rows, and all of these are alike."""
    both = np.isfinite(one) & np.isfinite(other)
    return bool(both.any()) and np.allclose(one[both], other[both], rtol=ALIKE, atol=0)


def training_rows(state: Measured, most: float) -> tuple[Population, Values, Mask, int]:
    """What predictors are fitted to: architectures, values, which rows count, and how many of them were measured.

    These come first (`relevant_rows`, at most `most`). The best of a warm start follow, as far as there is room, with their
    values in the columns that are measured alike. Failed rows do not count, nor those that pad.
    """
    rows, alike = relevant_rows(state, most), measured_alike(state)
    archs, values = state.archs[rows], state.values[rows]
    valid = np.isfinite(values).all(1)
    if alike.any():
        warm, known = state.problem.warm, {bytes(arch) for arch in state.archs}
        room = int(min(MAX_PRIOR_ROWS, most - len(rows)))
        new = [i for arch, i in _places(state.problem).items() if arch not in known][:room]
        further = np.where(alike, warm.values[new], np.nan)  # type: ignore[union-attr]
        archs, values = np.concatenate([archs, warm.archs[new]]), np.concatenate([values, further])  # type: ignore[union-attr]
        valid = np.concatenate([valid, np.isfinite(further).any(1)])
    padded = padded_rows(archs, values)
    return *padded, np.resize(valid, len(padded[1])) & (np.arange(len(padded[1])) < len(valid)), len(rows)
