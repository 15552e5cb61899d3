"""A trajectory to watch: the board after every supervision step, with the model's confidence.

The confidence in a cell is the softmax probability of the token that stands there, from the logits
that the output head reads from y. It says how sharp the head is, no more: TRM is trained with
stablemax, and nothing calibrates a softmax of its logits. The paper shows no boards.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens (cells), L positions, C
channels.
"""

import dataclasses
import functools
import html
import io
import json
import math
import re
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.text import Text

from ptrm_jax import charts, metrics, sweep, tasks
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, NothingToShow
from ptrm_jax.analysis.modes import solved_at
from ptrm_jax.model import TRM, Params
from ptrm_jax.sweep import Record
from ptrm_jax.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("unused", "given", "open", "right", "wrong")
"""What a cell can be: no part of the puzzle; a clue, kept; an answer that nothing is known of; an
answer that is right; one that is wrong, a clue that was not kept among them."""
UNUSED, GIVEN, OPEN, RIGHT, WRONG = range(len(KINDS))
DOUBT = 0.9
"""Cells with less confidence are marked in text."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """One puzzle that TRM fails and a rollout solves, step by step, side by side."""

    num_puzzles: int | None = 32
    """The first so many puzzles of the data, among which to look; None for all."""
    rollouts: int = 16
    """K, width: noisy rollouts of each puzzle, the best by Q is shown."""


class Film(NamedTuple):
    """One rollout, board by board.

    Attributes:
      symbols: D lists of S short texts, "" for an empty cell.
      kind: [D, S] int, places in `KINDS`.
      confidence: [D, S] float, probabilities.
      q_logit: [D] float, logits.
      width: cells in a row of the board.
    """

    symbols: list[list[str]]
    kind: np.ndarray
    confidence: np.ndarray
    q_logit: np.ndarray
    width: int


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
    """The boards of one rollout, without the margins that no puzzle fills.

    Args:
      task: whose symbols cells show; without one they show the numbers of their tokens, on a grid
        as square as S cells allow.
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
    cells, width = _frame(used)
    return Film(
        [[board[cell] for cell in cells] for board in symbols],
        np.where(used, kind, UNUSED)[:, cells],
        np.nan_to_num(confidence[:, cells]),
        q_logit,
        width,
    )


def _frame(used: np.ndarray) -> tuple[np.ndarray, int]:
    """Cells of the smallest rectangle that holds all used ones, of a board [S]; and its width."""
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
    found = np.asarray(_confidence(model, params, flat))
    return found.reshape(*y.shape[:-2], -1)


@functools.partial(jax.jit, static_argnames="model")
def _confidence(model: TRM, params: Params, y: jax.Array) -> jax.Array:
    def of_one(y: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, y, method=TRM.heads).logits
        return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).max(axis=-1)

    return lax.map(of_one, y)  # one by one: logits of all would need V numbers for each cell


def text(shown: Film, step: int) -> Text:
    """The board after a step (from 1) for a terminal; its marks say what its colours say.

    Behind a cell stands ``x`` where it is wrong, ``?`` where confidence is below `DOUBT`.
    """
    size = max((len(symbol) for board in shown.symbols for symbol in board), default=1) or 1
    found = Text()
    cells = zip(
        *(shown.symbols[step - 1], shown.kind[step - 1], shown.confidence[step - 1]), strict=True
    )
    for place, (symbol, kind, sure) in enumerate(cells):
        if place and place % shown.width == 0:
            found.append("\n")
        doubtful = kind not in (UNUSED, GIVEN) and sure < DOUBT
        symbol = "" if kind == UNUSED else symbol or "."
        mark = "x" if kind == WRONG else "?" if doubtful else " "
        if kind == WRONG:
            style = f"bold underline {charts.COLOURS[1]}"
        elif kind == GIVEN:
            style = "bold"
        else:
            style = charts.COLOURS[4 if doubtful else 5]
        found.append(symbol.rjust(size), style=style)
        found.append(mark)
    return found


class Choice(NamedTuple):
    """What to show.

    Attributes:
      row: of the puzzle.
      rollout: of that puzzle, the one with the largest Q.
      escapes: [B] bool, puzzles that TRM fails and the best-Q rollout solves.
    """

    row: int
    rollout: int
    escapes: np.ndarray


def choose(quiet: Record, noisy: Record) -> Choice:
    """A puzzle on which a rollout goes another way than TRM.

    Of the puzzles that TRM fails after the last step and the best-Q rollout solves, the one that
    the rollout solves latest: there is the most to see. Where there is none, of those whose last
    answers differ, the one where the two differ most in how many cells are right.

    Args:
      quiet: of TRM, fields [B, 1, D].
      noisy: of the rollouts, fields [B, K, D].

    Raises:
      NothingToShow: all answers of the best-Q rollouts are those of TRM.
    """
    end, quiet_end = (record.at(noisy.correct.shape[2]) for record in (noisy, quiet))
    best = np.where(end.finite, end.q_logit, -np.inf).argmax(axis=1)
    everyone = np.arange(len(best))
    finite = end.finite[everyone, best]
    escapes = end.correct[everyone, best] & ~quiet_end.correct[:, 0] & finite
    differ = (end.answer[everyone, best] != quiet_end.answer[:, 0]) & finite
    if not differ.any():
        raise NothingToShow(
            "the best-Q rollout of each of these puzzles ends with the answer of TRM without "
            "noise: there are no two trajectories to compare; pass more puzzles, more sigma or "
            "harder data"
        )
    if escapes.any():
        row = np.where(escapes, solved_at(noisy.correct[everyone, best]), 0).argmax()
    else:
        cells = end.cell_accuracy[everyone, best], quiet_end.cell_accuracy[:, 0]
        row = np.where(differ, np.abs(cells[0] - cells[1]), -1).argmax()
    return Choice(int(row), int(best[row]), escapes)


def make(study: study.Study) -> list[Exhibit]:
    """Two boards side by side, TRM and the best-Q rollout: GIF, page, and a few steps as PNG."""
    settings = study.settings
    sigma, depth = settings.sigma, settings.depth
    result = study.sweep()
    quiet, noisy = result.deterministic.record, sweep.runs_of(result, sigma)[0].record
    row, rollout, escapes = choose(quiet, noisy)
    puzzles = study.puzzles
    task = None if result.task is None else tasks.load(result.task)
    films = {}
    findings = {
        "escapes": Finding.of(
            f"TRM fails and best-Q@{settings.rollouts} solves, D={depth}, sigma {sigma:g}",
            metrics.interval(escapes),
        )
    }
    for name, title, k, scale in (
        ("trm", "TRM, no noise", 0, 0.0),
        ("rollout", f"rollout {rollout}, sigma {sigma:g}", rollout, sigma),
    ):
        path = study.replay([row], [k], sigma=scale)
        films[title] = shown = film(
            task,
            puzzles.puzzles.inputs[row],
            path.answers[0, 0],
            confidence(study.model, study.params, path.y[0, 0]),
            path.q_logit[0, 0],
            puzzles.labels[row],
            ignore_label=puzzles.ignore_label,
        )
        numbers = {
            "q": ("Q after the last step", float(shown.q_logit[-1]), "number"),
            "cells": ("cells right after the last step", path.cell_accuracy[0, 0, -1], "%"),
        }
        for kind, what in ((RIGHT, "right"), (WRONG, "wrong")):
            if (shown.kind == kind).any():
                mean = shown.confidence[shown.kind == kind].mean()
                numbers[f"confidence_{what}"] = (f"mean confidence in {what} cells", mean, "%")
        for key, (what, value, unit) in numbers.items():
            what = f"{what}, all steps" if key.startswith("confidence") else what
            findings[f"{key}_{name}"] = Finding(
                f"{title}, puzzle {row}: {what}", float(value), None, None, None, unit
            )
    story = (
        "which TRM fails and the best-Q rollout solves"
        if escapes[row]
        else "where the two differ most; no best-Q rollout solves what TRM fails"
    )
    caption = study.caption(result, f"puzzle {row}, {story}")
    reading = [
        f"The best-Q rollout of {settings.rollouts} solves what TRM fails for "
        f"{findings['escapes'].text()}.",
        f"Puzzle {row}, {story}. After step {depth} TRM has {_state(findings, 'trm')}, rollout "
        f"{rollout} {_state(findings, 'rollout')}.",
    ]
    title = "A trajectory to watch: TRM against a rollout"
    return [
        Exhibit(
            name="movie",
            title=title,
            caption=caption,
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=result.provenance,
            figure=still(films, caption),
            data={
                f"{field}_{name}": np.asarray(getattr(shown, field))
                for name, shown in zip(("trm", "rollout"), films.values(), strict=True)
                for field in ("symbols", "kind", "confidence", "q_logit")
            },
            files={".gif": gif(films), ".html": page(films, title, caption).encode()},
        )
    ]


def _state(findings: dict[str, Finding], name: str) -> str:
    return f"{findings[f'cells_{name}'].text()} of the cells right and a Q of " + (
        f"{findings[f'q_{name}'].value:+.2f}"
    )


# --- Pictures ------------------------------------------------------------------------------------

_COLOUR_OF = {RIGHT: charts.COLOURS[0], WRONG: charts.COLOURS[1], OPEN: charts.COLOURS[0]}
_GIVEN_COLOUR = "#9a9a9a"


def _colours(kind: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Colour of each cell, the stronger the surer: [..., 3] float."""
    from matplotlib.colors import to_rgb

    found = np.ones((*kind.shape, 3))
    found[kind == GIVEN] = to_rgb(_GIVEN_COLOUR)
    for which, colour in _COLOUR_OF.items():
        strength = (0.08 + 0.92 * confidence[kind == which])[:, None]
        found[kind == which] = 1 - strength * (1 - np.array(to_rgb(colour)))
    return found


def draw_board(ax: "Axes", shown: Film, step: int) -> None:
    """The board after a step (from 1): colour for truth and confidence, a cross where wrong."""
    from matplotlib.collections import LineCollection

    symbols, kind, sure = (field[step - 1] for field in shown[:3])
    width = shown.width
    height = -(-len(symbols) // width)
    padding = height * width - len(symbols)
    grid = np.pad(_colours(kind, sure), ((0, padding), (0, 0)), constant_values=1.0)
    ax.imshow(grid.reshape(height, width, 3), interpolation="nearest")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    lines = [[(x - 0.5, -0.5), (x - 0.5, height - 0.5)] for x in range(1, width)]
    lines += [[(-0.5, y - 0.5), (width - 0.5, y - 0.5)] for y in range(1, height)]
    ax.add_collection(LineCollection(lines, colors="white", linewidths=0.8))
    places = [divmod(int(cell), width) for cell in np.flatnonzero(kind == WRONG)]
    crosses = [
        [(x - 0.42, y - 0.42 * way), (x + 0.42, y + 0.42 * way)]
        for y, x in places
        for way in (1, -1)
    ]
    ax.add_collection(LineCollection(crosses, colors="black", linewidths=0.9, alpha=0.6))
    box = ax.get_window_extent()
    size = 72 / ax.figure.dpi * min(box.width / width, box.height / height)
    longest = max(map(len, symbols), default=1) or 1
    for cell, symbol in enumerate(symbols):
        if symbol and kind[cell] != UNUSED:
            row, column = divmod(cell, width)
            dark = grid[cell] @ (0.299, 0.587, 0.114) < 0.6
            ax.text(
                *(column, row, symbol),
                color="white" if dark else "black",
                fontsize=0.62 * size / max(1, 0.6 * longest),
                fontweight="bold" if kind[cell] == GIVEN else "normal",
                ha="center",
                va="center_baseline",
            )


def _key(ax: "Axes") -> None:
    """What colours and crosses mean."""

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


def _heading(shown: Film, step: int) -> str:
    """Step, Q and how much is right, of one board."""
    kind = shown.kind[step - 1]
    wrong = int((kind == WRONG).sum())
    return f"step {step}   Q {shown.q_logit[step - 1]:+.2f}   " + (
        f"{wrong} wrong" if wrong else "solved"
    )


def still(films: dict[str, Film], caption: str) -> "Figure":
    """A row of boards for each rollout, after up to five steps, closer together at the start."""
    depth = len(next(iter(films.values())).symbols)
    steps = np.unique(np.geomspace(1, depth, 5).round().astype(int)).tolist()
    figure = _figure(2.3 * len(steps), 2.7 * len(films) + 1.05)
    total = figure.get_figheight()
    for row, (title, shown) in enumerate(films.items()):
        for column, step in enumerate(steps):
            bottom = 1.1 + 2.7 * (len(films) - 1 - row)
            ax = figure.add_axes(
                ((column + 0.06) / len(steps), bottom / total, 0.9 / len(steps), 2.1 / total)
            )
            draw_board(ax, shown, step)
            ax.set_title(_heading(shown, step), fontsize=8)
        figure.text(0.01, (bottom + 2.35) / total, title, fontsize=10, fontweight="bold")
    _key(figure.add_axes((0.2, 0.5 / total, 0.6, 0.5 / total)))
    figure.text(
        *(0.5, 0.05 / total, caption), fontsize=7, color=charts.GREY, ha="center", va="bottom"
    )
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def gif(films: dict[str, Film], *, seconds: float = 0.6, hold: float = 3.0) -> bytes:
    """The boards of several rollouts side by side, a frame for each step.

    Args:
      films: by title, all of one depth.
      seconds: that a step is shown.
      hold: seconds that the last one is.
    """
    from PIL import Image

    depth = len(next(iter(films.values())).symbols)
    figure = _figure(3.4 * len(films), 4.2)
    figure.set_dpi(100)
    axes = [
        figure.add_axes(((column + 0.03) / len(films), 0.15, 0.94 / len(films), 0.73))
        for column in range(len(films))
    ]
    _key(figure.add_axes((0.1, 0.005, 0.8, 0.13)))
    frames = []
    for step in range(1, depth + 1):
        for ax, (title, shown) in zip(axes, films.items(), strict=True):
            ax.clear()
            draw_board(ax, shown, step)
            ax.set_title(f"{title}\n{_heading(shown, step)}", fontsize=9)
        figure.canvas.draw()
        picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
        # With the palette of the first frame, which has the key, only what changes is stored.
        palette = frames[0] if frames else picture.quantize(128)
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


# --- The page ------------------------------------------------------------------------------------


def page(films: dict[str, Film], title: str, caption: str) -> str:
    """The boards as a page of HTML with a slider, which opens without a server or a network.

    Args:
      films: by title, all of one depth.
      title: of the page.
      caption: below the boards.
    """
    data = {
        "kinds": KINDS,
        "boards": [
            {
                "title": name,
                "width": shown.width,
                "symbols": shown.symbols,
                "kind": shown.kind.tolist(),
                "percent": np.rint(100 * shown.confidence).astype(int).tolist(),
                "heading": [_heading(shown, s + 1) for s in range(len(shown.symbols))],
            }
            for name, shown in films.items()
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
#boards { display: flex; flex-wrap: wrap; gap: 2rem; }
.board { display: grid; gap: 1px; width: min(30rem, 90vw); }
.cell { aspect-ratio: 1; display: flex; align-items: center; justify-content: center;
  position: relative; font-size: .9rem; overflow: hidden; }
.given { background: @given@; font-weight: bold; }
.wrong::after { content: ""; position: absolute; inset: 0; background:
  linear-gradient(to top right, transparent 47%, #000 47% 53%, transparent 53%),
  linear-gradient(to bottom right, transparent 47%, #000 47% 53%, transparent 53%); opacity: .6; }
.caption { color: #555; font-size: .85rem; white-space: pre-line; }
input { width: min(30rem, 60vw); vertical-align: middle; }
</style></head><body><h1>@title@</h1>
<p><button id="play">play</button>
<input id="step" type="range" min="1" value="1" aria-label="supervision step">
<output id="number"></output></p>
<div id="boards"></div>
<p>Blue: right; orange and crossed out: wrong; grey: given. The stronger the colour, the surer the
model: the softmax probability of the token, which shows on pointing at a cell.</p>
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
      if (kind === "unused") return cell;
      cell.textContent = board.symbols[t][i];
      cell.title = kind === "given" ? kind : `${kind}, ${sure} %`;
      if (kind in colours) {
        const shade = Math.round(8 + 0.92 * sure);
        cell.style.background = `color-mix(in srgb, ${colours[kind]} ${shade}%, white)`;
        cell.style.color = shade > 55 ? "white" : "black";
      }
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
