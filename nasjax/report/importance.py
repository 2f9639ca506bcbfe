"""How much each gene matters: an additive model of a run's evaluations, and what of its variance is a gene's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

from nasjax.runs.reader import Network, Run
from nasjax.words import plural

LEAST_NETWORKS, MOST_NETWORKS = 20, 2000
"""Of fewer measured networks nothing is said; of more, as many evenly spread over the search are enough."""

PENALTIES = np.logspace(-2, 3, 11)
"""Ridge penalties to choose from."""

SHOWN = 12
"""Genes in sight; the others are folded away."""


@dataclass(frozen=True)
class Importance:
    """Of one objective: each gene's share of the model's variance, and how much of the variance is explained, in %.

    `explained` is of networks left out of the model. `shares` sum to 100, or are all 0 where the values do not differ.
    """

    shares: Mapping[str, float]
    explained: float


def gene_importance(run: Run) -> dict[str, Importance]:
    """The importance of the genes for each objective by name; none with fewer than `LEAST_NETWORKS` measured networks.

    An objective is modelled as a sum of one term a gene, by ridge regression with the penalty that leave-one-out
    validation chooses. In such a model the variance of a gene's term is, up to a factor, the permutation importance: how
    much worse predictions become when the gene's options are shuffled among networks.
    """
    networks = [network for network in run.evaluations if not network.failed]
    if len(networks) < LEAST_NETWORKS:
        return {}
    networks = networks[:: -(-len(networks) // MOST_NETWORKS)]
    terms = {name: _term(name, options, networks) for name, options in run.space.options.items()}
    terms = {name: term for name, term in terms.items() if term.shape[1]}
    if not terms:
        return {}
    parts = np.linalg.svd(np.concatenate(list(terms.values()), 1), full_matrices=False)
    return {
        objective.name: _importance(terms, parts, np.array([network.metrics[objective.name] for network in networks]))
        for objective in run.objectives
    }


def _term(name: str, options: Sequence[str], networks: Sequence[Network]) -> Float[np.ndarray, "networks options"]:
    """Which option a gene has, centred over the networks in which it exists; where it does not, its term is 0."""
    seen = [option for option in options if any(network.genes.get(name) == option for network in networks)]
    exists = np.array([[name in network.genes] for network in networks])
    if len(seen) < 2:
        return np.zeros((len(networks), 0))
    chosen = np.array([[float(network.genes.get(name) == option) for option in seen] for network in networks])
    return np.where(exists, chosen - chosen.sum(0) / exists.sum(), 0.0)


def _importance(
    terms: Mapping[str, Float[np.ndarray, "networks options"]],
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    values: Float[np.ndarray, " networks"],
) -> Importance:
    left, sizes, right = parts
    values = values - values.mean()
    deviation = values.std()
    if not deviation > 0:
        return Importance(dict.fromkeys(terms, 0.0), 0.0)
    values = values / deviation
    projected = left.T @ values
    fits = []
    for penalty in PENALTIES:
        kept = sizes**2 / (sizes**2 + penalty)
        own = left**2 @ kept + 1 / len(values)
        held_out = (values - left @ (kept * projected)) / np.maximum(1 - own, 1e-9)
        fits.append((float((held_out**2).mean()), float(penalty)))
    error, penalty = min(fits)
    weights = right.T @ (sizes / (sizes**2 + penalty) * projected)
    edges = np.cumsum([term.shape[1] for term in terms.values()])[:-1]
    variances = [float((term @ own).var()) for term, own in zip(terms.values(), np.split(weights, edges), strict=True)]
    total = sum(variances) or 1.0
    return Importance({name: 100 * v / total for name, v in zip(terms, variances, strict=True)}, 100 * max(0.0, 1 - error))


def importance_table(run: Run) -> str:
    """One bar a gene and objective, the most important genes first, as HTML; "" where there is nothing to say."""
    found = gene_importance(run)
    if not found:
        return ""
    names = list(next(iter(found.values())).shares)
    names.sort(key=lambda name: -max(importance.shares[name] for importance in found.values()))
    most = max(max(importance.shares.values()) for importance in found.values()) or 1.0
    heads = "".join(f"<th>{escape(objective)}</th>" for objective in found)
    explained = "".join(f"<td>{importance.explained:.0f} %</td>" for importance in found.values())

    def table(some: Sequence[str]) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th>"
            + "".join(_cell(importance.shares[name], most) for importance in found.values())
            + "</tr>\n"
            for name in some
        )
        return (
            f'<div class="scroll"><table class="importance"><thead><tr><th>gene</th>{heads}</tr></thead>\n<tbody>\n{rows}'
            f"</tbody><tfoot><tr><th>explained</th>{explained}</tr></tfoot></table></div>"
        )

    rest = names[SHOWN:]
    folded = f"<details><summary>{plural(len(rest), 'more gene')}</summary>{table(rest)}</details>" if rest else ""
    return (
        f"<section>\n<h2>Gene importance</h2>\n{table(names[:SHOWN])}{folded}\n"
        '<p class="legend">What part of the differences between the networks evaluated is a gene\'s, by a sum of one term a '
        "gene (ridge regression). “Explained” is how much of the differences this sum predicts for networks left out of it: "
        "where that is little, genes matter together, or noise does.</p>\n</section>"
    )


def _cell(share: float, most: float) -> str:
    return f'<td class="share">{share:.1f} %<span style="width:{100 * share / most:.1f}%"></span></td>'
