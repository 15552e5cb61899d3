"""A rollout board by board, with the model's confidence: as text, as a picture, GIF and web page.

The confidence in a cell is the softmax probability of its token, from the logits that the output
head reads from y. It shows how peaked these logits are and is not calibrated: TRM is trained with
stablemax, not softmax.

Shape letters: D supervision steps, S tokens (cells), L positions, C channels, V vocabulary.
"""

import functools
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.text import Text

from ptrm_jax import charts, metrics
from ptrm_jax.model import TRM, Params
from ptrm_jax.tasks import Look, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("unused", "given", "open", "right", "wrong")
"""Kinds of cells: not part of the puzzle; a clue that was kept; an answer without a known label; an
answer that is right; one that is wrong, including clues that were not kept."""
UNUSED, GIVEN, OPEN, RIGHT, WRONG = range(len(KINDS))
_ABOVE, _RIGHT, _BELOW, _LEFT = 1, 2, 4, 8  # of `Look.walls`
DOUBT = 0.9
"""Cells with a lower confidence are marked in text."""


class Film(NamedTuple):
    """One rollout, board by board.

    Attributes:
      symbols: D lists of S short texts, "" for an empty cell.
      kind: [D, S] int, indices into `KINDS`.
      confidence: [D, S] float, probabilities.
      q_logit: [D] float, logits.
      width: cells in a row of the board.
      box: rows and columns of a box, the board being divided into boxes; None if it is not.
      looks: D lists of S looks on paper; None if the symbols say it all.
    """

    symbols: list[list[str]]
    kind: np.ndarray
    confidence: np.ndarray
    q_logit: np.ndarray
    width: int
    box: tuple[int, int] | None = None
    looks: list[list[Look]] | None = None


def film(
    task: Task | None,
    puzzle: np.ndarray,
    answers: np.ndarray,
    confidence: np.ndarray,
    q_logit: np.ndarray,
    label: np.ndarray | None = None,
    *,
    ignore_label: int | None = None,
) -> Film:
    """The boards of one rollout, without the margins that the puzzle does not use.

    Args:
      task: gives the symbols of cells; without it they show token numbers, on a board that is as
        square as S cells allow.
      puzzle: [S] int.
      answers: [D, S] int.
      confidence: [D, S] float; NaN counts as 0.
      q_logit: [D] float.
      label: [S] int, the right answer, if it is known.
      ignore_label: label of cells that do not count.
    """
    given = np.zeros(len(puzzle), bool) if task is None else task.given(puzzle)
    kept = answers == puzzle
    if label is None:
        kind, used = np.full(answers.shape, OPEN), puzzle != 0
    else:
        kind = np.where(answers == label, RIGHT, WRONG)
        used = metrics.token_mask(label[None], ignore_label)[0]
    kind = np.where(given & kept & (kind != WRONG), GIVEN, np.where(given & ~kept, WRONG, kind))
    symbols = [
        [str(token) for token in board.tolist()] if task is None else task.symbols(board)
        for board in answers
    ]
    looks = None
    if task is not None and task.looks is not None:
        looks = [task.looks(board, puzzle) for board in answers]
    cells, width = _frame(used)
    return Film(
        [[board[cell] for cell in cells] for board in symbols],
        np.where(used, kind, UNUSED)[:, cells],
        np.nan_to_num(confidence[:, cells]),
        q_logit,
        width,
        task.box(len(puzzle)) if task is not None and len(cells) == len(puzzle) else None,
        None if looks is None else [[board[cell] for cell in cells] for board in looks],
    )


def _frame(used: np.ndarray) -> tuple[np.ndarray, int]:
    """Cells of the smallest rectangle around all used ones, of a board [S]; and its width."""
    side = math.isqrt(len(used) - 1) + 1
    rows, columns = np.divmod(np.arange(len(used)), side)
    inside = np.ones(len(used), bool)
    for places in (rows, columns):
        inside &= (places >= places[used].min()) & (places <= places[used].max())
    return np.flatnonzero(inside), len(np.unique(columns[inside]))


def confidence(model: TRM, params: Params, y: np.ndarray) -> np.ndarray:
    """Softmax probability of the most probable token of every cell, which is the answer's.

    Args:
      model: the network.
      params: its parameters.
      y: [..., L, C] float.

    Returns:
      [..., S] float32.
    """
    flat = jnp.asarray(y.reshape(-1, *y.shape[-2:]), model.precision.dtype)
    return np.asarray(_confidence(model, params, flat)).reshape(*y.shape[:-2], -1)


@functools.partial(jax.jit, static_argnames="model")
def _confidence(model: TRM, params: Params, y: jax.Array) -> jax.Array:
    heads: Callable[..., Any] = functools.partial(model.apply, {"params": params}, method=TRM.heads)

    def of_one(y: jax.Array) -> jax.Array:
        logits = heads(y).logits
        return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).max(axis=-1)

    return lax.map(of_one, y)  # one at a time: the logits of all need V numbers per cell


def heading(film: Film, step: int) -> str:
    """Step (from 1), Q and number of wrong cells of one board."""
    wrong = int((film.kind[step - 1] == WRONG).sum())
    return f"step {step}   Q {film.q_logit[step - 1]:+.2f}   " + (
        f"{wrong} wrong" if wrong else "solved"
    )


def _walls(film: Film, height: int) -> np.ndarray:
    """Masks of the thick lines around each cell, as `Look.walls`: [height, width] int."""
    masks = np.zeros(height * film.width, int)
    if film.looks is not None:  # the same in all boards
        masks[: len(film.looks[0])] = [look.walls for look in film.looks[0]]
    walls = masks.reshape(height, film.width)
    columns, rows = _box_lines(film, height)
    for column in columns:
        walls[:, column] |= _LEFT
    for row in rows:
        walls[row] |= _ABOVE
    return walls


def _box_lines(film: Film, height: int) -> tuple[list[int], list[int]]:
    """The columns and the rows that begin a box, without the first of each."""
    if film.box is None:
        return [], []
    rows, columns = film.box
    return list(range(columns, film.width, columns)), list(range(rows, height, rows))


# --- Text ----------------------------------------------------------------------------------------


def text(film: Film, step: int) -> Text:
    """The board after a step (from 1) for a terminal; marks repeat what the colours show.

    An ``x`` follows a wrong cell, a ``?`` one whose confidence is below `DOUBT`.
    """
    symbols = film.symbols[step - 1]
    if film.looks is not None:
        symbols = [_glyph(look) for look in film.looks[step - 1]]
    size = max((len(symbol) for symbol in symbols), default=1) or 1
    walls = _walls(film, -(-len(symbols) // film.width))
    # A column of the text for each line between columns that is thick somewhere; so for rows.
    columns = np.asarray((walls & _LEFT > 0).any(axis=0))
    rows = np.asarray((walls & _ABOVE > 0).any(axis=1))
    found = Text()
    for cell, (symbol, kind, sure) in enumerate(
        zip(symbols, film.kind[step - 1], film.confidence[step - 1], strict=True)
    ):
        row, column = divmod(cell, film.width)
        if column == 0 and row:
            found.append(f"\n{_rule(walls, row, columns, size)}\n" if rows[row] else "\n")
        elif columns[column] and column:
            found.append("│" if walls[row, column] & _LEFT else " ")
        doubtful = kind not in (UNUSED, GIVEN) and sure < DOUBT
        if kind == WRONG:
            style = f"bold underline {charts.COLOURS[1]}"
        elif kind == GIVEN:
            style = "bold"
        else:
            style = charts.COLOURS[4 if doubtful else 5]
        found.append(("" if kind == UNUSED else symbol or ".").rjust(size), style=style)
        found.append("x" if kind == WRONG else "?" if doubtful else " ")
    return found


def _rule(walls: np.ndarray, row: int, columns: np.ndarray, size: int) -> str:
    """The line of text above a row, with the thick lines there."""
    above = walls[row] & _ABOVE > 0
    parts = []
    for column, thick in enumerate(above):
        if columns[column] and column:
            meets = (
                above[column - 1] or thick or ((walls[row - 1 : row + 1, column] & _LEFT) > 0).any()
            )
            across = above[column - 1] and thick
            parts.append("┼" if across else "·" if meets else " ")
        parts.append(("─" if thick else " ") * (size + 1))
    return "".join(parts)


_GLYPHS = {
    "dot": "·",
    "bulb": "*",
    "upper left": "◤",
    "upper right": "◥",
    "lower right": "◢",
    "lower left": "◣",
}
_CORNERS = {
    "upper left": ((0, 0), (1, 0), (0, 1)),
    "upper right": ((0, 0), (1, 0), (1, 1)),
    "lower right": ((1, 0), (1, 1), (0, 1)),
    "lower left": ((0, 0), (1, 1), (0, 1)),
}
"""Corners (x, y) of the triangles in a cell, from its upper left."""


def _glyph(look: Look) -> str:
    """A cell as a short text: its clue, then what is drawn there."""
    drawn = {"black": "■", "shaded": "#"}.get(look.fill, "") or _GLYPHS.get(look.shape, "")
    return look.text.replace(" ", ",") + ("" if look.text and look.fill == "black" else drawn)


# --- Pictures ------------------------------------------------------------------------------------

_COLOUR_OF = {RIGHT: charts.COLOURS[0], WRONG: charts.COLOURS[1], OPEN: charts.COLOURS[0]}
_GIVEN_COLOUR = "#9a9a9a"


def _colours(kind: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Colour of each cell, the stronger the higher the confidence: [..., 3] float."""
    from matplotlib.colors import to_rgb

    found = np.ones((*kind.shape, 3))
    found[kind == GIVEN] = to_rgb(_GIVEN_COLOUR)
    for which, colour in _COLOUR_OF.items():
        strength = (0.08 + 0.92 * confidence[kind == which])[:, None]
        found[kind == which] = 1 - strength * (1 - np.array(to_rgb(colour)))
    return found


def draw_board(ax: "Axes", film: Film, step: int) -> None:
    """The board after a step (from 1): colour for truth and confidence, wrong cells crossed out."""
    from matplotlib.collections import LineCollection

    kind, sure = film.kind[step - 1], film.confidence[step - 1]
    height = -(-len(kind) // film.width)
    padding = height * film.width - len(kind)
    grid = np.pad(_colours(kind, sure), ((0, padding), (0, 0)), constant_values=1.0)
    ax.imshow(grid.reshape(height, film.width, 3), interpolation="nearest")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    cells = _lines(film.width, height, range(1, film.width), range(1, height))
    ax.add_collection(LineCollection(cells, colors="white", linewidths=0.8))
    thick = _thick_lines(_walls(film, height))
    ax.add_collection(LineCollection(thick, colors="black", linewidths=1.6))
    dark = grid @ (0.299, 0.587, 0.114) < 0.6
    symbols = film.symbols[step - 1]
    if film.looks is not None:
        looks = film.looks[step - 1]
        symbols = [look.text for look in looks]
        dark[: len(looks)] |= [look.fill != "" for look in looks]
        _draw_looks(ax, looks, kind, film.width)
    for cell in np.flatnonzero(kind == WRONG).tolist():
        y, x = divmod(cell, film.width)
        colour = "white" if film.looks is not None and film.looks[step - 1][cell].fill else "black"
        ends = [[(x - 0.42, y - 0.42 * way), (x + 0.42, y + 0.42 * way)] for way in (1, -1)]
        crosses = LineCollection(ends, colors=colour, linewidths=0.9, alpha=0.6, zorder=2)
        ax.add_collection(crosses)
    _write_symbols(ax, symbols, kind, dark, film.width, height)


def _draw_looks(ax: "Axes", looks: list[Look], kind: np.ndarray, width: int) -> None:
    """What is drawn in the cells, inside a margin of the colour of the cell."""
    from matplotlib.patches import Circle, Patch, Polygon, Rectangle

    for cell, look in enumerate(looks):
        row, column = divmod(cell, width)
        if kind[cell] == UNUSED:
            continue
        shapes: list[Patch] = []
        if look.fill:
            corner, size = (column - 0.4, row - 0.4), 0.8
            shapes.append(Rectangle(corner, size, size, color=_FILLS[look.fill]))
        if look.shape in _CORNERS:
            corners = [
                (column - 0.4 + 0.8 * x, row - 0.4 + 0.8 * y) for x, y in _CORNERS[look.shape]
            ]
            shapes.append(Polygon(corners, color="black"))
        elif look.shape == "bulb":
            shapes.append(Circle((column, row), 0.3, facecolor="#ffe680", edgecolor="black"))
        elif look.shape == "dot":
            shapes.append(Circle((column, row), 0.07, color="black"))
        for shape in shapes:
            ax.add_patch(shape)


def _thick_lines(walls: np.ndarray) -> list[Any]:
    """The thick lines on each side of the cells."""
    ends = {
        _ABOVE: ((-0.5, -0.5), (0.5, -0.5)),
        _RIGHT: ((0.5, -0.5), (0.5, 0.5)),
        _BELOW: ((-0.5, 0.5), (0.5, 0.5)),
        _LEFT: ((-0.5, -0.5), (-0.5, 0.5)),
    }
    return [
        [(column + x, row + y) for x, y in line]
        for (row, column), mask in np.ndenumerate(walls)
        for side, line in ends.items()
        if mask & side
    ]


_FILLS = {"black": "black", "shaded": "#333333"}


def _lines(width: int, height: int, columns: Iterable[int], rows: Iterable[int]) -> list[Any]:
    """Lines left of these columns and above these rows."""
    lines = [[(x - 0.5, -0.5), (x - 0.5, height - 0.5)] for x in columns]
    return lines + [[(-0.5, y - 0.5), (width - 0.5, y - 0.5)] for y in rows]


def _write_symbols(
    ax: "Axes", symbols: list[str], kind: np.ndarray, dark: np.ndarray, width: int, height: int
) -> None:
    """Symbols as large as cells allow; white on dark cells, bold if given."""
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi * min(box.width / width, box.height / height)
    longest = max(map(len, symbols), default=1) or 1
    for cell, symbol in enumerate(symbols):
        if symbol and kind[cell] != UNUSED:
            row, column = divmod(cell, width)
            ax.text(
                column,
                row,
                symbol,
                color="white" if dark[cell] else "black",
                fontsize=0.62 * points / max(1, 0.6 * longest),
                fontweight="bold" if kind[cell] == GIVEN else "normal",
                ha="center",
                va="center_baseline",
            )


def _draw_key(ax: "Axes") -> None:
    """Explains colours and crosses."""

    def write(x: float, y: float, words: str) -> None:
        ax.text(x, y, words, fontsize=7, ha="center", va="center")

    ramp = np.tile(np.linspace(0, 1, 60), (2, 1))
    for left, kind, name in ((0.02, RIGHT, "right"), (0.42, WRONG, "wrong, crossed out")):
        colours = _colours(np.full_like(ramp, kind, dtype=int), ramp)
        ax.imshow(colours, extent=(left, left + 0.3, 0.38, 0.66), aspect="auto")
        write(left + 0.15, 0.84, name)
        write(left, 0.2, "0 %")
        write(left + 0.15, 0.2, "confidence")
        write(left + 0.3, 0.2, "100 %")
    patch = _colours(np.full((1, 1), GIVEN), np.ones((1, 1)))
    ax.imshow(patch, extent=(0.84, 0.96, 0.38, 0.66), aspect="auto")
    write(0.9, 0.84, "given")
    ax.set(xlim=(-0.02, 1), ylim=(0, 1))
    ax.set_axis_off()


def _depth(films: Mapping[str, Film]) -> int:
    return len(next(iter(films.values())).symbols)


def still(films: Mapping[str, Film], caption: str) -> "Figure":
    """A row of boards for each rollout, after up to five steps, closer together at the start."""
    from matplotlib.figure import Figure

    steps = np.unique(np.geomspace(1, _depth(films), 5).round().astype(int)).tolist()
    total = 2.7 * len(films) + 1.05
    figure = Figure(figsize=(2.3 * len(steps), total))
    for row, (title, film) in enumerate(films.items()):
        bottom = 1.1 + 2.7 * (len(films) - 1 - row)
        for column, step in enumerate(steps):
            ax = figure.add_axes(
                ((column + 0.06) / len(steps), bottom / total, 0.9 / len(steps), 2.1 / total)
            )
            draw_board(ax, film, step)
            ax.set_title(heading(film, step), fontsize=8)
        figure.text(0.01, (bottom + 2.35) / total, title, fontsize=10, fontweight="bold")
    _draw_key(figure.add_axes((0.2, 0.5 / total, 0.6, 0.5 / total)))
    figure.text(0.5, 0.05 / total, caption, fontsize=7, color=charts.GREY, ha="center", va="bottom")
    return figure


def gif(
    films: Mapping[str, Film], title: str = "", *, seconds: float = 0.6, hold: float = 3.0
) -> bytes:
    """The boards of several rollouts side by side, each above its Q, one frame per step.

    Args:
      films: by title, all of the same depth.
      title: above the boards.
      seconds: duration of a frame.
      hold: seconds for which the last frame is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    count, depth = len(films), _depth(films)
    figure = Figure(figsize=(3.5 * count, 5.6), dpi=100)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 0.985, title, fontsize=9.5, fontweight="bold", ha="center", va="top")
    left = [(i + 0.08) / count for i in range(count)]
    boards = [figure.add_axes((x, 0.295, 0.84 / count, 0.525)) for x in left]
    curves = [figure.add_axes((x, 0.155, 0.84 / count, 0.1)) for x in left]
    _draw_key(figure.add_axes((0.1, 0.0, 0.8, 0.11)))
    q = np.concatenate([film.q_logit[np.isfinite(film.q_logit)] for film in films.values()])
    limits = (min(q, default=0.0) - 1, max(q, default=0.0) + 1)
    frames: list[Image.Image] = []
    for step in range(1, depth + 1):
        for board, curve, (name, film) in zip(boards, curves, films.items(), strict=True):
            board.clear()
            draw_board(board, film, step)
            board.set_title(f"{name}\n{heading(film, step)}", fontsize=9)
            _draw_q(curve, film, step, limits)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        # The palette of the first frame, which has the key, so that only changes are stored.
        palette = frames[0] if frames else picture.quantize(256)
        frames.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[round(1000 * seconds)] * (depth - 1) + [round(1000 * hold)],
        loop=0,
    )
    return buffer.getvalue()


def _draw_q(ax: "Axes", film: Film, step: int, limits: tuple[float, float]) -> None:
    """Q of all steps up to this one (from 1)."""
    ax.clear()
    ax.axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    steps = np.arange(1, step + 1)
    ax.plot(steps, film.q_logit[:step], color="black", linewidth=1.2, marker="o", markersize=3)
    ax.set(xlim=(0.5, len(film.q_logit) + 0.5), ylim=limits, xticks=[1, len(film.q_logit)])
    ax.set_title("Q, the network's score of its own answer", fontsize=7, pad=2)
    ax.set_xlabel("step", fontsize=7, labelpad=-6)
    ax.tick_params(labelsize=7)


# --- The page ------------------------------------------------------------------------------------


def page(films: Mapping[str, Film], title: str, caption: str) -> str:
    """The boards as a page of HTML with a slider; it opens without a server or a network.

    Args:
      films: by title, all of the same depth.
      title: of the page.
      caption: below the boards.
    """
    data = {
        "kinds": KINDS,
        "boards": [
            {
                "title": name,
                "width": film.width,
                "walls": _walls(film, -(-len(film.kind[0]) // film.width)).ravel().tolist(),
                "symbols": film.symbols
                if film.looks is None
                else [[look.text for look in board] for board in film.looks],
                "looks": None
                if film.looks is None
                else [
                    [f"{look.fill} {look.shape}".strip() for look in board] for board in film.looks
                ],
                "kind": film.kind.tolist(),
                "percent": np.rint(100 * film.confidence).astype(int).tolist(),
                "heading": [heading(film, s + 1) for s in range(len(film.symbols))],
            }
            for name, film in films.items()
        ],
    }
    values = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no </script>
    parts = {
        "title": html.escape(title),
        "caption": html.escape(caption),
        "right": charts.COLOURS[0],
        "wrong": charts.COLOURS[1],
        "given": _GIVEN_COLOUR,
        "data": values,
    }
    return re.sub("@([a-z]+)@", lambda match: parts[match[1]], _PAGE)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@title@</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; margin: 1.5rem; }
h2 { font-size: 1.1rem; }
#boards { display: flex; flex-wrap: wrap; gap: 2rem; }
.board { display: grid; gap: 1px; width: min(30rem, 90vw); }
.cell { aspect-ratio: 1; display: flex; align-items: center; justify-content: center;
  position: relative; font-size: .9rem; overflow: hidden; box-sizing: border-box; }
.look { position: absolute; inset: 10%; }
.look.black { background: #000; }
.look.shaded { background: #333; }
.look.bulb { border-radius: 50%; background: #ffe680; border: 1px solid #000; }
.look.dot { inset: 43%; border-radius: 50%; background: #000; }
.look.upper, .look.lower { background: #000; }
.look.upper.left { clip-path: polygon(0 0, 100% 0, 0 100%); }
.look.upper.right { clip-path: polygon(0 0, 100% 0, 100% 100%); }
.look.lower.right { clip-path: polygon(100% 0, 100% 100%, 0 100%); }
.look.lower.left { clip-path: polygon(0 0, 100% 100%, 0 100%); }
.clue { position: relative; }
.given { background: @given@; font-weight: bold; }
.wrong::after { content: ""; position: absolute; inset: 0; background:
  linear-gradient(to top right, transparent 48%, #000 48% 52%, transparent 52%),
  linear-gradient(to bottom right, transparent 48%, #000 48% 52%, transparent 52%); opacity: .6; }
.caption { color: #555; font-size: .85rem; white-space: pre-line; }
input { width: min(30rem, 60vw); vertical-align: middle; }
</style></head><body><h1>@title@</h1>
<p><button id="play">play</button>
<input id="step" type="range" min="1" value="1" aria-label="supervision step">
<output id="number"></output></p>
<div id="boards"></div>
<p>Blue: right; orange and crossed out: wrong; grey: given. The stronger the colour, the higher the
model's confidence, the softmax probability of the token; hover over a cell to see it.</p>
<p class="caption">@caption@</p>
<script type="application/json" id="data">@data@</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("step"), play = document.getElementById("play");
const depth = data.boards[0].kind.length;
const colours = { open: "@right@", right: "@right@", wrong: "@wrong@" };
slider.max = depth;
for (const board of data.boards) {
  const column = document.createElement("div"), name = document.createElement("h2");
  board.line = document.createElement("p"); board.grid = document.createElement("div");
  name.textContent = board.title; board.grid.className = "board";
  board.grid.style.gridTemplateColumns = `repeat(${board.width}, 1fr)`;
  column.append(name, board.line, board.grid);
  document.getElementById("boards").append(column);
}
function show() {
  const t = slider.value - 1;
  document.getElementById("number").textContent = `step ${t + 1} of ${depth}`;
  for (const board of data.boards) {
    board.line.textContent = board.heading[t];
    board.grid.replaceChildren(...board.kind[t].map((k, i) => {
      const cell = document.createElement("div"), kind = data.kinds[k], sure = board.percent[t][i];
      cell.className = `cell ${kind}`;
      ["Top", "Right", "Bottom", "Left"].forEach((side, bit) => {
        if (board.walls[i] >> bit & 1) cell.style[`border${side}`] = "2px solid #000";
      });
      if (kind === "unused") return cell;
      const look = document.createElement("span"), clue = document.createElement("span");
      look.className = `look ${board.looks ? board.looks[t][i] : ""}`;
      clue.className = "clue"; clue.textContent = board.symbols[t][i];
      cell.append(look, clue);
      cell.title = kind === "given" ? kind : `${kind}, ${sure} %`;
      if (kind in colours) {
        const shade = Math.round(8 + 0.92 * sure);
        cell.style.background = `color-mix(in srgb, ${colours[kind]} ${shade}%, white)`;
        cell.style.color = shade > 55 ? "white" : "black";
      }
      if (/black|shaded/.test(look.className)) cell.style.color = "white";
      return cell;
    }));
  }
}
let timer = null;
function stop() { clearInterval(timer); timer = null; play.textContent = "play"; }
slider.oninput = () => { stop(); show(); };
play.onclick = () => {
  if (timer) return stop();
  if (+slider.value === depth) slider.value = 1;
  show();
  play.textContent = "pause";
  timer = setInterval(() => {
    slider.value = +slider.value + 1;
    show();
    if (+slider.value === depth) stop();
  }, 600);
};
show();
</script></body></html>
"""
