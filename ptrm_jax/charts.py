"""The style of all pictures: colour-blind-safe colours, intervals, a caption below the axes."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrm_jax.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinct for any colour vision; markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#444444"


def colour(style: int) -> str:
    """Colour of a curve by its number; the colours repeat."""
    return COLOURS[style % len(COLOURS)]


def new_figure(
    caption: str = "",
    *,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (3.8, 4.2),
    margin: float = 3.6,
    **subplots: Any,
) -> tuple["Figure", np.ndarray]:
    """A figure and its axes, [rows, columns].

    Args:
      caption: text below the axes: checkpoint, data, settings; may have several lines.
      rows: of axes.
      columns: of axes.
      size: width and height of one of the axes, inches.
      margin: space on the right for `legend`, inches.
      **subplots: for matplotlib's `Figure.subplots`.
    """
    # Without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns + margin, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for ax in axes.flat:
        ax.grid(alpha=0.3)
    if caption:
        # Names of files may have dollar signs, which would be formulas.
        figure.supxlabel(caption, fontsize=7, color=GREY, parse_math=False)
    return figure, axes


def percent(ax: "Axes", axis: str = "y") -> None:
    """Writes the fractions on an axis as percent."""
    which = ax.yaxis if axis == "y" else ax.xaxis
    which.set_major_formatter(lambda value, _: f"{100 * value:g}")


def points(
    ax: "Axes", x: np.ndarray, values: Sequence[Interval], style: int, label: str, **line: Any
) -> None:
    """Draws means with error bars. Callers shift `x` a little, since curves often coincide."""
    mean, low, high = np.array([value[:3] for value in values]).T
    ax.errorbar(
        x,
        mean,
        # If all puzzles are equal, rounding may put an end of the interval past the mean.
        yerr=np.maximum((mean - low, high - mean), 0),
        label=label,
        color=colour(style),
        marker=MARKERS[style % len(MARKERS)],
        **{"markersize": 5, "linewidth": 1.2, "elinewidth": 0.8, "capsize": 2, **line},
    )


def band(ax: "Axes", x: np.ndarray, values: Sequence[Interval], style: int, label: str) -> None:
    """Draws means with their intervals as a band, for curves of many points."""
    mean, low, high = np.array([value[:3] for value in values]).T
    marker = MARKERS[style % len(MARKERS)] if len(x) <= 64 else ""
    ax.plot(x, mean, label=label, color=colour(style), marker=marker, markersize=4, linewidth=1.2)
    ax.fill_between(x, low, high, color=colour(style), alpha=0.12, linewidth=0)


def mark_few(
    ax: "Axes", x: np.ndarray, values: Sequence[Interval], style: int, label: str, fewest: int = 10
) -> None:
    """Draws means of fewer than `fewest` puzzles hollow, over the curve of the same style."""
    few = [i for i, value in enumerate(values) if value.num_puzzles < fewest]
    if few:
        ax.plot(
            x[few],
            [values[i].mean for i in few],
            MARKERS[style],
            color=colour(style),
            markerfacecolor="white",
            markersize=5,
            label=f"{label} of fewer than {fewest} puzzles",
            zorder=3,
        )


def legend(figure: "Figure", ax: "Axes") -> None:
    """Adds the legend of some axes to the right of all axes."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8)


def legend_below(ax: "Axes", columns: int = 2) -> None:
    """Adds a legend below axes, where it covers no data; none if nothing has a label."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
            ncols=columns,
            fontsize=8,
            frameon=False,
        )


def letters(axes: np.ndarray) -> None:
    """Names panels a, b, c, ..., row by row, at their upper left corners."""
    for place, ax in enumerate(axes.flat):
        ax.annotate(
            chr(ord("a") + place),
            (0, 1),
            xytext=(-26, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            fontweight="bold",
            fontsize=12,
        )


def png(figure: "Figure", dpi: int = 150) -> bytes:
    """A figure as the contents of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
