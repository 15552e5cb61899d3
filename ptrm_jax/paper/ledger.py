"""The ledger: the claims of the paper beside what result files say of them, with a verdict each."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from etils import epath

from ptrm_jax import markdown, paper, sweep
from ptrm_jax.analysis.exhibit import Finding
from ptrm_jax.errors import SweepError
from ptrm_jax.metrics import Interval
from ptrm_jax.paper.claims import SECTIONS, Claim, Expectation
from ptrm_jax.sweep import scores
from ptrm_jax.sweep.scores import Scores

SMALL = 0.02
"""Half the width of what counts as no difference between two accuracies: two points."""

Verdict = Literal["reproduced effect", "contradicted", "undecided", "reproduced", "differs"]

_TITLES = (
    "paper",
    "quantity",
    "its value",
    "ours at full size",
    "effect on our checkpoints",
    "verdict",
)

FullSize = tuple[Scores, epath.Path]
"""A finished sweep of a benchmark: its scores, and its folder."""

# --- Verdicts ------------------------------------------------------------------------------------


def effect_verdict(found: Finding, expects: Expectation) -> Verdict:
    """Whether a finding shows an effect, by the ends of its interval.

    Expected to be small, it is contradicted only by an interval that lies beyond `SMALL`.
    """
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    if expects == "negative":
        low, high = -high, -low
    if expects == "small":
        if -SMALL <= low and high <= SMALL:
            return "reproduced effect"
        return "contradicted" if low > SMALL or high < -SMALL else "undecided"
    if low > 0:
        return "reproduced effect"
    return "contradicted" if high < 0 else "undecided"


def value_verdict(value: Interval | float, paper: float, unit: str) -> Verdict:
    """Whether the paper's value lies within the interval of ours; within a tenth without one."""
    if isinstance(value, Interval):
        scale = 100 if unit in ("%", "points") else 1
        return "reproduced" if scale * value.low <= paper <= scale * value.high else "differs"
    return "reproduced" if math.isclose(value, paper, rel_tol=0.1) else "differs"


# --- The table -----------------------------------------------------------------------------------


def full_size(
    directories: Iterable[str | os.PathLike[str]],
) -> dict[str, FullSize]:
    """Finished sweeps of named benchmarks and their folders, by the benchmark's name.

    Raises:
      SweepError: one is not the folder of a sweep, or of no benchmark.
      IncompleteError: units are missing.
    """
    found: dict[str, FullSize] = {}
    for directory in map(epath.Path, directories):
        result = sweep.read(directory)
        name = result.config.benchmark
        if name not in paper.NAMES:
            raise SweepError(
                f"{directory} must be a sweep of {', '.join(paper.NAMES)}; it is of none; run "
                "experiments/ptrm_sweep.py NAME"
            )
        found[name] = (scores.compute(result), directory)
    return found


def table(
    records: Sequence[Mapping[str, Any]], sweeps: Mapping[str, FullSize] | None = None
) -> str:
    """The ledger as Markdown: a table for every section, then the commands of our values.

    Args:
      records: of figures, as `ptrm_jax.analysis.exhibit.read` returns them.
      sweeps: of `full_size`.
    """
    shown = {(r["provenance"]["checkpoint"]["name"], r["name"]): r for r in records}
    commands: dict[str, str] = {}
    counts: Counter[str] = Counter()
    parts = []
    for section in SECTIONS:
        rows = []
        full = (sweeps or {}).get(section.benchmark or "")
        for claim in section.claims:
            ours, verdicts = _full_size_value(claim, full)
            effects = []
            for effect in claim.effects:
                record = shown.get((effect.checkpoint, effect.exhibit))
                if record is None or effect.finding not in record["findings"]:
                    continue
                found = record["findings"][effect.finding]
                label = f"{effect.checkpoint}-{effect.exhibit}"
                commands[label] = record["command"]
                verdict = effect_verdict(found, effect.expects)
                effects.append(
                    f"{markdown.escaped(found.what)}: {found.text()} ({label}, {verdict})"
                )
                verdicts.append(verdict)
            conclusion = " / ".join(dict.fromkeys(verdicts)) or f"needs {section.needs}"
            if not ours and verdicts:
                conclusion += "; value needs full size"
            counts.update(verdicts or ["needs full size"])
            value = f"{claim.paper:g}" if isinstance(claim.paper, (int, float)) else claim.paper
            cells = [claim.where, claim.what, f"{value} {claim.unit}".strip(), ours]
            rows.append([*cells, "<br>".join(effects), conclusion])
        parts.append(
            f"### {section.title}\n\nFull size: `{section.command}`; needs {section.needs}.\n\n"
            + markdown.table(_TITLES, rows)
        )
    total = sum(len(section.claims) for section in SECTIONS)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    listed = "".join(f"- {k}: {markdown.code(commands[k])}\n" for k in sorted(commands))
    head = f"{total} numbers of the paper. Tests of them: {summary}.\n"
    return "\n".join([head, *parts, "### Commands of our values\n", listed])


def _full_size_value(claim: Claim, full: FullSize | None) -> tuple[str, list[str]]:
    """Our value of a claim at full size, "" if there is none, and its verdict."""
    if full is None or claim.measure is None:
        return "", []
    value = claim.measure(*full)
    text = value.brief() if isinstance(value, Interval) else f"{value:.3g}"
    return text, [value_verdict(value, float(claim.paper), claim.unit)]
