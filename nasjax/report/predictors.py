"""How far the predictors of a search were off as it went on."""

import math
from html import escape

from nasjax.report.formatting import column_heading, format_number, units_of
from nasjax.report.plots import padded
from nasjax.report.svg import frame, scales
from nasjax.runs.reader import PredictorFit, Run
from nasjax.words import plural


def predictor_errors(run: Run) -> str:
    """One curve for each metric that was predicted, by the errors in predictors.csv, as HTML; "" where none was."""
    curves: dict[str, list[PredictorFit]] = {}
    for fit in run.fits:
        if math.isfinite(fit.rmse):
            curves.setdefault(fit.objective, []).append(fit)
    if not curves:
        return ""
    units = units_of(run.objectives)
    figures = "\n".join(_chart(name, column_heading(name, units), fits) for name, fits in curves.items())
    return (
        f'<section>\n<h2>Predictor errors</h2>\n<figure class="predicted">\n{figures}\n<figcaption>Root mean square error '
        "of the predictors that the tactic fitted before each step, by cross-validation: of networks measured so far, each "
        "predicted without itself. Point at a circle for the mean error in % and Kendall's tau.</figcaption></figure>\n"
        "</section>"
    )


def _chart(name: str, heading: str, fits: list[PredictorFit]) -> str:
    width, height = 620, 250
    x_range = padded(min(fit.rows for fit in fits), max(fit.rows for fit in fits))
    y_range = padded(0.0, max(fit.rmse for fit in fits))
    x_of, y_of = scales(width, height, x_range, y_range)
    line = " ".join(f"{x_of(fit.rows):.1f},{y_of(fit.rmse):.1f}" for fit in fits)
    circles = "\n".join(
        f'<circle class="predictor" cx="{x_of(fit.rows):.1f}" cy="{y_of(fit.rmse):.1f}" r="3.5">'
        f"<title>{escape(_said(fit))}</title></circle>"
        for fit in fits
    )
    axes = frame(width, height, x_range, y_range, "networks fitted to", f"error of {heading}", True)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"error of predicted {name}")}">\n{axes}\n'
        f'<polyline class="curve" points="{line}"/>\n{circles}\n</svg>'
    )


def _said(fit: PredictorFit) -> str:
    percent = f", mean error {fit.mape:.2g} %" if math.isfinite(fit.mape) else ""
    tau = f", Kendall's tau {fit.tau:.2f}" if math.isfinite(fit.tau) else ""
    return f"step {fit.step}, fitted to {plural(fit.rows, 'network')}: RMSE {format_number(fit.rmse)}{percent}{tau}"
