"""How pictures look: no display, colours for any colour vision, intervals, a caption below."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrm_jax.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; never colour alone: markers differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#444444"


def colour(style: int) -> str:
    """Colour of the curve of this number; they repeat."""
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
      caption: below the axes: checkpoint, data, settings; may have several lines.
      rows: of axes.
      columns: of axes.
      size: width and height of one of the axes, inches.
      margin: room on the right for `legend`, inches.
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
        figure.supxlabel(caption, fontsize=7, color=GREY)
    return figure, axes


def percent(ax: "Axes", axis: str = "y") -> None:
    """Fractions on an axis, written as percent."""
    which = ax.yaxis if axis == "y" else ax.xaxis
    which.set_major_formatter(lambda value, _: f"{100 * value:g}")


def points(
    ax: "Axes", x: np.ndarray, values: Sequence[Interval], style: int, label: str, **line: Any
) -> None:
    """Means with whiskers; `x` is shifted a little by the caller, since curves often coincide."""
    mean, low, high = np.array([value[:3] for value in values]).T
    ax.errorbar(
        x,
        mean,
        # Where resampling says nothing an interval may lie beside its mean by rounding.
        yerr=np.maximum((mean - low, high - mean), 0),
        label=label,
        color=colour(style),
        marker=MARKERS[style % len(MARKERS)],
        **{"markersize": 5, "linewidth": 1.2, "elinewidth": 0.8, "capsize": 2, **line},
    )


def band(ax: "Axes", x: np.ndarray, values: Sequence[Interval], style: int, label: str) -> None:
    """Means with their interval as a band, for curves of many points."""
    mean, low, high = np.array([value[:3] for value in values]).T
    marker = MARKERS[style % len(MARKERS)] if len(x) <= 64 else ""
    ax.plot(x, mean, label=label, color=colour(style), marker=marker, markersize=4, linewidth=1.2)
    ax.fill_between(x, low, high, color=colour(style), alpha=0.12, linewidth=0)


def legend(figure: "Figure", ax: "Axes") -> None:
    """Beside the axes, where it hides nothing."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8)


def png(figure: "Figure", dpi: int = 150) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
