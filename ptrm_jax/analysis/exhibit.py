"""The result of an analysis: a picture, its data, and its findings in numbers and in words."""

import csv
import dataclasses
import html
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy as np
from etils import epath

from ptrm_jax import charts, markdown as md
from ptrm_jax.errors import InputError
from ptrm_jax.files import signed, unsigned, write_bytes, write_text
from ptrm_jax.metrics import Interval
from ptrm_jax.reading import MEBIBYTE, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FindingUnit = Literal["%", "points", "number", "seconds", "dollars"]


class NothingToShow(InputError):
    """These puzzles lack what an analysis needs; the message says what, and what may help."""


class Finding(NamedTuple):
    """A number that an analysis found.

    Attributes:
      what: its description, with K, D, sigma where they matter.
      value: a fraction where the unit is "%" or "points" (a difference of fractions).
      low: lower end of its 95 % interval over puzzles; None where it has none.
      high: upper end.
      num_puzzles: number of puzzles behind it; None where it is not about puzzles.
      unit: unit in which it is written.
    """

    what: str
    value: float
    low: float | None
    high: float | None
    num_puzzles: int | None
    unit: FindingUnit

    @classmethod
    def of(cls, what: str, interval: Interval, unit: FindingUnit = "%") -> "Finding":
        """A finding with an interval."""
        mean, low, high = map(float, interval[:3])
        return cls(what, mean, low, high, int(interval.num_puzzles), unit)

    @classmethod
    def single(
        cls, what: str, value: float, unit: FindingUnit, num_puzzles: int | None = None
    ) -> "Finding":
        """A finding without an interval."""
        return cls(what, float(value), None, None, num_puzzles, unit)

    def text(self) -> str:
        """The value with its unit and interval."""
        share = self.unit in ("%", "points")
        scale = 100 if share else 1
        sign = "+" if self.unit == "points" else ""
        # Three significant figures of the value, and as many decimal places of the ends.
        known = math.isfinite(self.value) and self.value != 0
        places = 1 if share else max(0, 2 - math.floor(math.log10(abs(self.value)))) if known else 2

        def number(value: float) -> str:
            return f"{scale * value:{sign},.{places}f}"

        unit = {"%": " %", "points": " points", "seconds": " s", "dollars": " dollars"}
        text = number(self.value) + unit.get(self.unit, "")
        if self.low is not None and self.high is not None:
            text += f" [{number(self.low)}, {number(self.high)}]"
        return text + (f", n={self.num_puzzles}" if self.num_puzzles is not None else "")


def interval_columns(interval: Interval) -> dict[str, float]:
    """An accuracy as columns of a table: `accuracy`, `low`, `high`."""
    return {"accuracy": interval.mean, "low": interval.low, "high": interval.high}


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One picture with its data and findings.

    Attributes:
      name: stem of its files.
      title: what it shows, with the paper's number of the figure.
      caption: checkpoint and its digest, data, K, D, sigma, seeds, number of puzzles.
      command: the command that makes it, as one would type it.
      reading: what it shows on these puzzles, in sentences made from the numbers.
      findings: the numbers, by a short name.
      provenance: of its sweep, JSON.
      figure: the picture, unless `files` has it.
      data: the arrays that are drawn, by name; written to `<name>.npz`.
      rows: the numbers that are drawn, as a table; written to `<name>.csv`.
      files: other files, by suffix, such as ".gif".
    """

    name: str
    title: str
    caption: str
    command: str
    reading: Sequence[str]
    findings: Mapping[str, Finding]
    provenance: Mapping[str, Any]
    figure: "Figure | None" = None
    data: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def write(self, directory: str | os.PathLike[str]) -> list[str]:
        """Writes its files into a folder, made if it does not exist; returns their names.

        Each is written whole or not at all. `<name>.json`, which has everything but picture and
        data, is written last: if it exists, the others do.
        """
        folder = epath.Path(directory)
        files = {suffix: bytes(data) for suffix, data in self.files.items()}
        if self.figure is not None:
            files[".png"] = charts.png(self.figure)
        if self.data:
            buffer = io.BytesIO()
            arrays: dict[str, Any] = {name: np.asarray(array) for name, array in self.data.items()}
            np.savez_compressed(buffer, **arrays)
            files[".npz"] = buffer.getvalue()
        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            files[".csv"] = text.getvalue().encode()
        names = [f"{self.name}{suffix}" for suffix in files]
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in zip(names, files.values(), strict=True):
            write_bytes(folder / name, data)
        saved = {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "command": self.command,
            "reading": list(self.reading),
            "findings": {key: finding._asdict() for key, finding in self.findings.items()},
            "files": names,
            "provenance": dict(self.provenance),
        }
        write_text(folder / f"{self.name}.json", json.dumps(signed(saved), indent=1) + "\n")
        return [*names, f"{self.name}.json"]


def read(directory: str | os.PathLike[str], names: Iterable[str]) -> list[dict[str, Any]]:
    """The exhibits of these names that a folder has, in that order.

    Args:
      directory: written by `Exhibit.write`.
      names: of exhibits.

    Returns:
      The contents of their JSON files, with `findings` as Finding.

    Raises:
      InputError: a file is damaged, or not that of an exhibit.
      OSError: it cannot be read.
    """
    exhibits = []
    for name in names:
        path = epath.Path(directory) / f"{name}.json"
        if path.exists():
            try:
                saved = unsigned(read_json(path, 64 * MEBIBYTE))
                _check(msgspec.convert(saved, _Saved), saved.keys(), name)
            except ValueError as error:
                raise InputError(
                    f"{path} is not the record of a figure: {error}; run figures.py {name} again"
                ) from error
            for key, fields in saved["findings"].items():
                value = math.nan if fields["value"] is None else fields["value"]
                saved["findings"][key] = Finding(**{**fields, "value": value})
            exhibits.append(saved)
    return exhibits


class _SavedFinding(TypedDict):
    what: str
    value: float | None
    low: float | None
    high: float | None
    num_puzzles: int | None
    unit: FindingUnit


class _Named(TypedDict):
    name: str


class _Provenance(TypedDict):
    """What is read of it; there is more in it."""

    checkpoint: _Named


class _Saved(TypedDict):
    """The JSON file of an exhibit, without its digest."""

    name: str
    title: str
    caption: str
    command: str
    reading: list[str]
    findings: dict[str, _SavedFinding]
    files: list[str]
    provenance: _Provenance


def _check(saved: _Saved, fields: Iterable[str], name: str) -> None:
    """Raises ValueError for other fields, another name, or files that are not beside the record."""
    if set(fields) != set(_Saved.__annotations__) or saved["name"] != name:
        raise ValueError(f"it must have {', '.join(_Saved.__annotations__)}, and the name {name}")
    for file in saved["files"]:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.[a-z]+", file):
            raise ValueError(f"its files must be beside it; got {file[:99]!r}")


def index(exhibits: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> str:
    """An HTML page that shows exhibits and opens without a server.

    Args:
      exhibits: of `read`, of the folder in which the page will be.
      missing: why an analysis shows nothing, by its name.
    """
    parts = [_HEAD]
    for saved in exhibits:
        title, files = html.escape(saved["title"]), [html.escape(f) for f in saved["files"]]
        parts.append(f'<section><h2 id="{html.escape(saved["name"])}">{title}</h2>')
        for file in files:
            if file.endswith((".png", ".gif")):
                parts.append(f'<img src="{file}" alt="{title}">')
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in saved["reading"]]
        parts.append(f'<p class="caption">{html.escape(saved["caption"])}</p>')
        parts.append(f"<pre>{html.escape(saved['command'])}</pre>")
        rows = "".join(
            f"<tr><td>{html.escape(f.what)}</td><td>{html.escape(f.text())}</td></tr>"
            for f in saved["findings"].values()
        )
        links = ", ".join(f'<a href="{file}">{file}</a>' for file in files)
        parts.append(f"<details><summary>numbers and files</summary><table>{rows}</table>")
        parts.append(f"<p>{links}</p></details></section>")
    for name, why in missing.items():
        parts.append(f"<section><h2>{html.escape(name)}</h2><p>{html.escape(why)}</p></section>")
    return "\n".join([*parts, "</body></html>\n"])


def markdown(folders: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Exhibits as Markdown: picture, reading, caption, command.

    Args:
      folders: exhibits of `read`, by the path of their folder in links.
    """
    parts = [_INTRODUCTION]
    for folder, exhibits in folders.items():
        for saved in exhibits:
            name = saved["provenance"]["checkpoint"]["name"]
            title = md.escaped(saved["title"])
            parts.append(f"## {title}: {md.escaped(name)}\n")
            for file in saved["files"]:
                if file.endswith((".png", ".gif")):
                    parts.append(f"![{title}]({md.target(f'{folder}/{file}')})\n")
            parts += [f"{md.escaped(sentence)}\n" for sentence in saved["reading"]]
            caption = md.escaped(saved["caption"].replace("\n", "; "))
            parts.append(f"*{caption}. {md.code(saved['command'])}*\n")
    return "\n".join(parts)


_INTRODUCTION = """# Experiments

Generated by `python experiments/paper.py --report EXPERIMENTS.md` from the files that
`experiments/figures.py` wrote; [experiments/results](experiments/results/README.md) has the
commands. Intervals are 95 %, over puzzles. The sentences below each figure hold for these small
models on these puzzles.
"""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Analyses of a recursive model</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; } pre { background: #f2f2f2; padding: .5rem; white-space: pre-wrap; }
.caption { color: #555; font-size: .85rem; white-space: pre-line; }
table { border-collapse: collapse; } td { border-bottom: 1px solid #ddd; padding: .2rem .6rem; }
section { border-top: 1px solid #ccc; margin-top: 2rem; }
</style></head><body><h1>Analyses of a recursive model</h1>"""
