"""BoTorch's qLogNoisyExpectedHypervolumeImprovement on one-hot inputs, ten at a time from a discrete pool.

The model is BoTorch's default (a Gaussian process with a length scale for each input); its fit is stopped after STEPS steps.
The reference point is the one that BoTorch infers from the measured front: its nadir and a tenth of its range. Limits are
BoTorch's outcome constraints, each with a model of its own.
"""

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.optim import optimize_acqf_discrete
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from gpytorch.mlls import SumMarginalLogLikelihood

from benchmarks import draw

START, BATCH, POOL, DRAWS, STEPS = 20, 10, 512, 64, 60


def one_hot(space, archs):
    """One-hot vectors of all genes, of architectures; genes that do not exist are all 0."""
    on = np.asarray(space.active(archs))
    return torch.tensor(np.concatenate([np.eye(n)[archs[:, i]] * on[:, i, None] for i, n in enumerate(space.counts)], 1))


def leading(values):
    """Which rows no other row dominates; rows of NaN are not among them."""
    return np.array([not (np.isnan(row).any() or ((values <= row).all(1) & (values < row).any(1)).any()) for row in values])


def proposed(problem, archs, values, pool, batch):
    """Returns the rows of `pool` that the acquisition takes, given what is measured."""
    space, number = problem.space, len(problem.objectives)
    x, y = one_hot(space, archs), torch.tensor(-values)
    centre, unit = y.mean(0), y.std(0)
    unit = torch.where(unit > 0, unit, 1.0)
    scaled = (y - centre) / unit
    front = leading(problem.feasible(values))
    # As long as nothing keeps the limits, the reference is the worst that was measured.
    reference = infer_reference_point(scaled[front][:, :number]) if front.any() else scaled[:, :number].min(0).values
    least = [(-limit - centre[number + i]) / unit[number + i] for i, limit in enumerate(problem.limits)]
    limits = {
        "objective": IdentityMCMultiOutputObjective(outcomes=list(range(number))),
        "constraints": [lambda z, i=i, low=low: low - z[..., number + i] for i, low in enumerate(least)],
    }
    model = ModelListGP(*[SingleTaskGP(x, scaled[:, i : i + 1]) for i in range(y.shape[1])])
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": {"maxiter": STEPS}})
    acquisition = qLogNoisyExpectedHypervolumeImprovement(
        model=model,
        ref_point=reference.tolist(),
        X_baseline=x,
        sampler=SobolQMCNormalSampler(torch.Size([DRAWS])),
        prune_baseline=True,
        **(limits if problem.limits else {}),
    )
    choices = one_hot(space, pool)
    with torch.no_grad():
        found, _ = optimize_acqf_discrete(acquisition, q=min(batch, len(pool)), choices=choices, max_batch_size=128)
    return [int((choices - row).abs().sum(1).argmin()) for row in found]


def near_and_far(meter, rng, best):
    """Returns POOL mutants of the best networks and POOL random ones, without those that were measured."""
    space = meter.problem.space
    parents = best[rng.integers(0, len(best), POOL)]
    changed = np.where(rng.random(parents.shape) < 1.5 / len(space.counts), draw(rng, space, POOL), parents)
    pool = np.unique(space.canonical(np.concatenate([changed, draw(rng, space, POOL)])), axis=0)
    return pool[[arch.tobytes() not in meter.known for arch in pool]]


def begun(meter, rng, number):
    """Seeds PyTorch, on one thread, and measures so many random networks; returns the problem."""
    torch.manual_seed(int(rng.integers(2**31)))
    torch.set_num_threads(1)
    meter(draw(rng, meter.problem.space, number))
    return meter.problem


def search(meter, rng):
    """Searches until the budget of `meter` is spent: START random networks, then batches chosen from a pool.

    Half of the pool are random networks, half are mutants of the front.
    """
    problem = begun(meter, rng, START)
    while not meter.spent:
        archs, values = meter.result()
        front = leading(problem.feasible(values))
        pool = near_and_far(meter, rng, archs[front] if front.any() else archs)
        if len(pool):
            pool = pool[rng.permutation(len(pool))[:POOL]]
            meter(pool[proposed(problem, archs, values, pool, BATCH)])
