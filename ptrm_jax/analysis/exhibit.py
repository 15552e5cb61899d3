"""What an analysis leaves: a picture, its data, its findings as numbers and in words; on disk."""

import csv
import dataclasses
import html
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from etils import epath

from ptrm_jax import charts
from ptrm_jax.errors import InputError
from ptrm_jax.files import write_bytes, write_text
from ptrm_jax.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Unit = Literal["%", "points", "number", "seconds", "dollars"]


class NothingToShow(InputError):
    """These puzzles do not have what an analysis looks at; says what, and what may help."""


class Finding(NamedTuple):
    """A number that an analysis found.

    Attributes:
      what: in words, with K, D, sigma where they matter.
      value: itself; a fraction where the unit is "%" or "points" (a difference of fractions).
      low: lower end of its 95 % interval over puzzles; None where it has none.
      high: upper end.
      num_puzzles: how many puzzles it is of.
      unit: how to write it.
    """

    what: str
    value: float
    low: float | None
    high: float | None
    num_puzzles: int | None
    unit: Unit

    @classmethod
    def of(cls, what: str, interval: Interval, unit: Unit = "%") -> "Finding":
        """A finding with an interval."""
        return cls(what, *map(float, interval[:3]), int(interval.num_puzzles), unit)

    def text(self) -> str:
        """The value with its unit and interval."""
        share = self.unit in ("%", "points")
        scale = 100 if share else 1
        sign = "+" if self.unit == "points" else ""
        # Three figures that count, of an interval's end as many places as of the value.
        known = math.isfinite(self.value) and self.value != 0
        places = 1 if share else max(0, 2 - math.floor(math.log10(abs(self.value)))) if known else 2

        def number(value: float) -> str:
            return f"{scale * value:{sign},.{places}f}"

        unit = {"%": " %", "points": " points", "seconds": " s", "dollars": " dollars"}
        text = number(self.value) + unit.get(self.unit, "")
        if self.low is not None and self.high is not None:
            text += f" [{number(self.low)}, {number(self.high)}]"
        return text + (f", n={self.num_puzzles}" if self.num_puzzles is not None else "")


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One picture and what stands behind it.

    Attributes:
      name: stem of its files.
      title: what it shows, with the paper's number of the figure.
      caption: checkpoint and its digest, data, K, D, sigma, seeds, number of puzzles.
      command: what makes it, as one would type it.
      reading: what it says on these puzzles, sentences made from the numbers.
      findings: the numbers, by a short name.
      provenance: of its sweep, JSON.
      figure: the picture, unless `files` has it.
      data: what is drawn, by name; goes into `<name>.npz`.
      rows: what is drawn, as a table; goes into `<name>.csv`.
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
        """Writes its files into a folder, made if need be; returns their names.

        Each is written whole or not at all, and `<name>.json`, which has everything but picture
        and data, comes last: where it is, all are.
        """
        directory = epath.Path(directory)
        files = {suffix: bytes(data) for suffix, data in self.files.items()}
        if self.figure is not None:
            files[".png"] = charts.png(self.figure)
        if self.data:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{k: np.asarray(v) for k, v in self.data.items()})
            files[".npz"] = buffer.getvalue()
        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            files[".csv"] = text.getvalue().encode()
        names = [f"{self.name}{suffix}" for suffix in files]
        directory.mkdir(parents=True, exist_ok=True)
        for suffix, data in files.items():
            write_bytes(directory / f"{self.name}{suffix}", data)
        record = {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "command": self.command,
            "reading": list(self.reading),
            "findings": {k: _plain(v._asdict()) for k, v in self.findings.items()},
            "files": names,
            "provenance": dict(self.provenance),
        }
        write_text(directory / f"{self.name}.json", json.dumps(record, indent=1) + "\n")
        return [*names, f"{self.name}.json"]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def read(directory: str | os.PathLike[str], names: Iterable[str]) -> list[dict[str, Any]]:
    """The records of the exhibits in a folder whose names begin so, in that order.

    Args:
      directory: that `Exhibit.write` wrote into.
      names: of analyses; an exhibit is called like one, or like one, "_" and more.

    Returns:
      Of each what `Exhibit.write` put into its JSON file, `findings` as Finding.
    """
    records = []
    for name in names:
        for path in sorted(epath.Path(directory).glob(f"{name}*.json")):
            if path.stem == name or path.stem.startswith(f"{name}_"):
                record = json.loads(path.read_text(encoding="utf-8"))
                found = record["findings"].items()
                record["findings"] = {key: Finding(**_numbers(fields)) for key, fields in found}
                records.append(record)
    return records


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    value = fields["value"]
    return {**fields, "value": math.nan if value is None else value}


def index(records: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> str:
    """A page of HTML that shows exhibits and opens without a server.

    Args:
      records: of `read`, of the folder that the page will lie in.
      missing: by the name of an analysis, why it shows nothing.
    """
    parts = [_HEAD]
    for record in records:
        parts.append(f'<section><h2 id="{record["name"]}">{html.escape(record["title"])}</h2>')
        for file in record["files"]:
            if file.endswith((".png", ".gif")):
                parts.append(f'<img src="{file}" alt="{html.escape(record["title"])}">')
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in record["reading"]]
        parts.append(f'<p class="caption">{html.escape(record["caption"])}</p>')
        parts.append(f"<pre>{html.escape(record['command'])}</pre>")
        rows = "".join(
            f"<tr><td>{html.escape(f.what)}</td><td>{html.escape(f.text())}</td></tr>"
            for f in record["findings"].values()
        )
        links = ", ".join(f'<a href="{file}">{file}</a>' for file in record["files"])
        parts.append(f"<details><summary>numbers and files</summary><table>{rows}</table>")
        parts.append(f"<p>{links}</p></details></section>")
    for name, why in missing.items():
        parts.append(f"<section><h2>{html.escape(name)}</h2><p>{html.escape(why)}</p></section>")
    return "\n".join([*parts, "</body></html>\n"])


def report(folders: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Exhibits as Markdown: picture, what it says, what it is of, what made it.

    Args:
      folders: records of `read`, by where their folder lies, as links have it.
    """
    parts = [_INTRODUCTION]
    for folder, records in folders.items():
        for record in records:
            name = record["provenance"]["checkpoint"]["name"]
            parts.append(f"## {record['title']}: {name}\n")
            for file in record["files"]:
                if file.endswith((".png", ".gif")):
                    parts.append(f"![{record['title']}]({folder}/{file})\n")
            parts += [f"{sentence}\n" for sentence in record["reading"]]
            caption = record["caption"].replace("\n", "; ")
            parts.append(f"*{caption}. `{record['command']}`*\n")
    return "\n".join(parts)


_INTRODUCTION = """# Experiments

Written by `python experiments/paper.py --report EXPERIMENTS.md` from the files that
`experiments/figures.py` left, here by the commands in
[experiments/results](experiments/results/README.md); no number is typed. Intervals are 95 %, over
puzzles. What a figure says, it says of these small models on these puzzles.
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
