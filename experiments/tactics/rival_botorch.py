"""BoTorch's qLogNoisyExpectedHypervolumeImprovement on one-hot inputs, ten at a time from a discrete pool.

The model is BoTorch's default (a Gaussian process with a length scale for each input); its fit is stopped after STEPS steps.
The reference point is the one that BoTorch infers from the measured front: its nadir and a tenth of its range.
"""

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.optim import optimize_acqf_discrete
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from gpytorch.mlls import SumMarginalLogLikelihood

START, BATCH, POOL, DRAWS, STEPS = 20, 10, 512, 64, 60


def search(meter, rng, draw):
    """Searches until the budget of `meter` is spent: START random networks, then batches chosen from a pool.

    Half of the pool are random networks, half are mutants of the front.
    """
    problem = meter.problem
    space, counts = problem.space, problem.space.counts
    torch.manual_seed(int(rng.integers(2**31)))
    torch.set_num_threads(1)
    meter(draw(rng, space, START))

    def inputs(archs):
        """One-hot vectors of all genes; genes that do not exist are all 0."""
        on = np.asarray(space.active(archs))
        return torch.tensor(np.concatenate([np.eye(n)[archs[:, i]] * on[:, i, None] for i, n in enumerate(counts)], 1))

    while not meter.spent:
        archs, values = meter.result()
        x, y = inputs(archs), torch.tensor(-values)
        centre, unit = y.mean(0), y.std(0)
        leading = [not ((values <= row).all(1) & (values < row).any(1)).any() for row in values]
        model = ModelListGP(*[SingleTaskGP(x, (y[:, i : i + 1] - centre[i]) / unit[i]) for i in range(y.shape[1])])
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": {"maxiter": STEPS}})
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=infer_reference_point(((y - centre) / unit)[leading]).tolist(),
            X_baseline=x,
            sampler=SobolQMCNormalSampler(torch.Size([DRAWS])),
            prune_baseline=True,
        )
        best = archs[leading]
        parents = best[rng.integers(0, len(best), POOL)]
        changed = np.where(rng.random(parents.shape) < 1.5 / len(counts), draw(rng, space, POOL), parents)
        pool = np.unique(space.canonical(np.concatenate([changed, draw(rng, space, POOL)])), axis=0)
        pool = pool[[arch.tobytes() not in meter.known for arch in pool]]
        if not len(pool):
            continue
        pool = pool[rng.permutation(len(pool))[:POOL]]
        with torch.no_grad():
            found, _ = optimize_acqf_discrete(acquisition, q=min(BATCH, len(pool)), choices=inputs(pool), max_batch_size=128)
        rows = [int((inputs(pool) - row).abs().sum(1).argmin()) for row in found]
        meter(pool[rows])
