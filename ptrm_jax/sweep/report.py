"""A sweep's scores as text: the table, `summary.csv`, `results.jsonl`; and all files of a report.

Pure functions of `Scores`: nothing is computed here.
"""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from ptrm_jax.files import json_text, write_bytes
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import pictures, web
from ptrm_jax.sweep.config import SweepConfig
from ptrm_jax.sweep.scores import CHOICE_NAMES, MethodScore, RunScore, Scores


def write(scores: Scores, directory: str | os.PathLike[str], *, command: str = "") -> epath.Path:
    """Writes the report of a sweep into a folder, each file whole or not at all.

    results.jsonl (one line per sigma and seed, the deterministic run first), summary.csv,
    table.txt, the pictures, and report.html, which shows all of it.

    Args:
      scores: of the sweep.
      directory: made if it does not exist; files of these names are replaced.
      command: what made the sweep, as one would type it; shown in report.html.
    """
    # Everything is made before anything is written.
    drawn = pictures.draw_all(scores)
    files = {
        "results.jsonl": results_jsonl(scores).encode(),
        "summary.csv": summary_csv(scores).encode(),
        "table.txt": table(scores).encode(),
        **drawn,
        "report.html": web.page(scores, table(scores), drawn, command).encode(),
    }
    folder = epath.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    return folder


# --- The table -----------------------------------------------------------------------------------


def table(scores: Scores) -> str:
    """Everything as plain text: accuracy in percent with 95 % intervals over puzzles."""
    lines = [*scores.headline, "", *_methods(scores, scores.methods)]
    lines += ["", *_reading(scores, scores.methods), *_strata(scores), *_grid(scores)]
    return "\n".join(lines) + "\n"


def short_table(scores: Scores) -> str:
    """The deterministic TRM, and best-Q, stopping and pass@K at the best sigma."""
    shown = [
        line
        for line in scores.methods
        if line.method == "TRM"
        or (line.sigma == scores.best.sigma and line.choice in ("best_q", "stop", "pass"))
    ]
    lines = [*scores.headline, "", *_methods(scores, shown)]
    return "\n".join([*lines, "", *_reading(scores, shown)]) + "\n"


def _methods(scores: Scores, shown: Sequence[MethodScore]) -> list[str]:
    config = scores.config
    several = len(config.seeds) > 1
    titles = ["", "solved %", "steps", f"vs TRM D={config.depth}"]
    titles += [f"vs TRM D={config.baseline_depth}"] if config.equal_compute else []
    titles += ["rules hold %"] if scores.has_rules else []
    titles += ["seed sd"] if several else []
    rows: list[list[str]] = [titles]
    sigma = None
    for line in shown:
        if line.method == "PTRM" and line.sigma != sigma:
            sigma = line.sigma
            rows.append([f"PTRM, sigma {sigma:g}"])
        cells = [_label(line), line.accuracy.brief(), _steps(line)]
        cells.append(_gain(line.gain_equal_depth))
        cells += [_gain(line.gain_equal_compute)] if config.equal_compute else []
        if line.validity is not None:
            cells.append(line.validity.brief())
        if several:
            cells.append("" if math.isnan(line.seed_spread) else f"{100 * line.seed_spread:.1f}")
        rows.append(cells)
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column flush left, the others flush right, two spaces between."""
    num_columns = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(num_columns)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def _label(line: MethodScore) -> str:
    read = ", read at best" if line.read == "best" else ""
    if line.choice == "deterministic":
        return f"TRM, D={line.depth}{read}"
    if line.choice == "mean":
        return f"  one rollout (mean){read}"
    if line.rule is not None:
        return f"  stop at Q >= {line.rule.q_logit:g}"
    mark = {"valid_then_q": " (*)", "pass": " (bound)"}.get(line.choice, "")
    return f"  {CHOICE_NAMES[line.choice]}@{line.rollouts}{read}{mark}"


def _steps(line: MethodScore) -> str:
    """Rollout-steps per puzzle; of a stopping rule with their share of K * D."""
    if line.rule is None:
        return f"{line.rollout_steps:g}"
    share = line.rollout_steps / (line.rollouts * line.depth)
    return f"{line.rollout_steps:.1f} ({100 * share:.1f} %)"


def _gain(interval: Interval | None) -> str:
    return "" if interval is None else interval.brief("+")


def _reading(scores: Scores, shown: Sequence[MethodScore]) -> list[str]:
    """Notes on the lines shown; the best best-Q line in words; and Q's AUC."""
    config, best = scores.config, scores.best
    lines = [
        "Solved with 95 % intervals; steps are rollout-steps per puzzle. Differences are paired by",
        "puzzle, with TRM read alike.",
    ]
    if any(line.read == "best" for line in shown):
        lines.append(
            "Read at best: at the step of highest Q; otherwise after the last step, as the paper."
        )
    if any(line.choice == "stop" and config.stop is None for line in shown):
        lines.append(
            "Stopping is replayed from the rollouts above; --stop-q runs only what it needs."
        )
    if any(line.choice == "pass" for line in shown):
        lines.append("pass@K needs the labels: an upper bound on choices read at the same step.")
    if any(line.choice == "valid_then_q" for line in shown):
        lines.append("(*) prefers answers that satisfy the rules; PTRM has no such verifier.")
    chosen = "Best of these sigmas, selected on these puzzles (optimistic)"
    lines.append(f"{chosen if len(config.sigmas) > 1 else 'Sigma'}: {best.sigma:g}.")
    equal = "equal depth and compute" if config.rollouts == 1 else "equal depth"
    lines.append(f"At {equal} PTRM {_verdict(best.gain_equal_depth)}.")
    if best.gain_equal_compute is not None and config.rollouts > 1:
        lines.append(
            f"At equal compute (TRM for {config.baseline_depth} steps) PTRM "
            f"{_verdict(best.gain_equal_compute)}."
        )
    auc = scores.curves[best.sigma].q_auc if scores.curves else math.nan
    if not math.isnan(auc):
        lines.append(f"AUC of Q over its rollouts: {auc:.3f}.")
    if config.stop is not None:
        seconds = sum(run.seconds for run in scores.runs if run.method == "PTRM")
        lines.append(f"PTRM took {seconds:.3g} seconds without compilation.")
    return lines


def _verdict(gain: Interval | None) -> str:
    assert gain is not None
    if gain.low > 0:
        return f"gains {100 * gain.mean:.1f} points"
    if gain.high < 0:
        return f"loses {-100 * gain.mean:.1f} points"
    return f"shows no significant difference on these puzzles ({100 * gain.mean:+.1f} points)"


def _strata(scores: Scores) -> list[str]:
    """One block for each way to split the puzzles, at the best sigma."""
    titles, sigma = scores.strata_columns, scores.best.sigma
    lines: list[str] = []
    for name, kinds in scores.strata.items():
        lines += ["", f"by {name}, sigma {sigma:g}, solved %"]
        lines.append(f"{'':<12}{'puzzles':>8}" + "".join(f"{title:>22}" for title in titles))
        for kind in kinds:
            cells = "".join(f"{cell.brief():>22}" for cell in kind.accuracy)
            lines.append(f"{kind.name:<12}{kind.num_puzzles:>8}" + cells)
    return lines


def _grid(scores: Scores) -> list[str]:
    """Best-Q by width and depth, one block per sigma; nothing without a grid."""
    config = scores.config
    lines: list[str] = []
    if not (config.grid_rollouts and config.grid_depths):
        return lines
    titles = ["K", *(f"D={d}" for d in config.grid_depths)]
    for sigma, curves in scores.curves.items():
        lines += ["", f"best-Q by width and depth, sigma {sigma:g}, solved %"]
        lines.append("".join(f"{title:>22}" for title in titles)[16:])
        for k, row in zip(config.grid_rollouts, curves.grid, strict=True):
            lines.append(f"{k:>6}" + "".join(f"{cell.brief():>22}" for cell in row))
    return lines


# --- Files ---------------------------------------------------------------------------------------


def results_jsonl(scores: Scores) -> str:
    """One line of JSON per run: settings, every figure with its interval, provenance."""
    return "".join(json_text(_run(scores, run)) + "\n" for run in scores.runs)


def _run(scores: Scores, run: RunScore) -> dict[str, Any]:
    return {
        "method": run.method,
        "sigma": run.sigma,
        "seed": run.seed,
        "rollouts": run.rollouts,
        "depth": run.depth,
        "noise_on": scores.config.noise_on,
        "noise_when": scores.config.noise_when,
        "langevin": run.langevin,
        **_reading_of(scores.config),
        "seconds": round(run.seconds, 3),
        "compile_seconds": round(run.compile_seconds, 3),
        "rollout_steps_per_second": round(run.rollout_steps / run.seconds, 1),
        "metrics": run.figures,
        "provenance": scores.provenance,
    }


def _reading_of(config: SweepConfig) -> dict[str, Any]:
    """How rollouts are read, where that is not after the last step."""
    if config.stop is not None:
        return {"stop": dataclasses.asdict(config.stop)}
    return {"read": config.read} if config.read == "best" else {}


def summary_csv(scores: Scores) -> str:
    """The methods, one line each, accuracies as fractions."""
    columns = ["method", "sigma", "choice", "rollouts", "depth", "seed_spread"]
    intervals = ["accuracy", "gain_equal_depth", "gain_equal_compute", "validity"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [*columns, "num_puzzles"]
        + [f"{name}{end}" for name in intervals for end in ("", "_low", "_high")]
        + ["read", "rollout_steps", "stop_q"]
    )
    for line in scores.methods:
        values = [getattr(line, name) for name in columns]
        values[-1] = "" if math.isnan(values[-1]) else values[-1]
        values.append(line.accuracy.num_puzzles)
        for name in intervals:
            interval = getattr(line, name)
            values += ["", "", ""] if interval is None else interval[:3]
        values += [line.read, line.rollout_steps, "" if line.rule is None else line.rule.q_logit]
        writer.writerow(values)
    return text.getvalue()
