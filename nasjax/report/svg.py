"""Axes and lines as SVG; the style sheet of the page colours them."""

from collections.abc import Callable, Sequence
from html import escape

from nasjax.report.plots import Point, Range, ticks

LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 46
"""Margins around the axes, in pixels."""

Scale = Callable[[float], float]
"""From a value to its pixel."""


def scales(width: int, height: int, x_range: Range, y_range: Range) -> tuple[Scale, Scale]:
    """The scales of the horizontal and the vertical axis."""

    def x_of(value: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * (value - x_range[0]) / (x_range[1] - x_range[0])

    def y_of(value: float) -> float:
        return height - BOTTOM - (height - TOP - BOTTOM) * (value - y_range[0]) / (y_range[1] - y_range[0])

    return x_of, y_of


def path(corners: Sequence[Point], x_of: Scale, y_of: Scale) -> str:
    """The line through some points, as the `d` attribute of an SVG path."""
    return "M" + "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in corners)


def frame(width: int, height: int, x_range: Range, y_range: Range, x_label: str, y_label: str, counts: bool) -> str:
    """Grid lines, tick labels and axis labels. With `counts` the horizontal axis has whole numbers only."""
    return f"{grid(width, height, x_range, y_range, counts)}\n{axis_labels(width, height, x_label, y_label)}"


def grid(width: int, height: int, x_range: Range, y_range: Range, counts: bool) -> str:
    """Grid lines and tick labels."""
    x_of, y_of = scales(width, height, x_range, y_range)
    right, bottom = width - RIGHT, height - BOTTOM
    lines = []
    for value, label in ticks(x_range, counts):
        x = x_of(value)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    for value, label in ticks(y_range):
        y = y_of(value)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        lines.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "\n".join(lines)


def axis_labels(width: int, height: int, x_label: str, y_label: str) -> str:
    """What the axes show."""
    across, up = (LEFT + width - RIGHT) / 2, (TOP + height - BOTTOM) / 2
    return (
        f'<text x="{across:.0f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>\n'
        f'<text transform="translate(15 {up:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
