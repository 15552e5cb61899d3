"""report.html: table, pictures, settings, provenance and command of a sweep on one page.

It opens without a server: pictures are embedded, and there is no script. All text is escaped.
"""

import base64
import dataclasses
import html
import json
from collections.abc import Mapping
from typing import Any

from ptrm_jax.sweep.scores import Scores

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figure { margin: 1rem 0; } figcaption { color: #444; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; }
td { border-bottom: 1px solid #ddd; padding: .15rem .8rem .15rem 0; vertical-align: top; }
td:first-child { color: #444; white-space: nowrap; }
"""

_CAPTIONS = {
    "accuracy_against_width": "Accuracy against the number of rollouts, by sigma",
    "accuracy_against_sigma": "Accuracy against the noise scale",
    "accuracy_against_depth": "Accuracy against the number of supervision steps",
    "solved_by_rollout_steps": "Puzzles solved, by the rollout-steps that they need",
    "q_of_right_and_wrong": "Q of right and of wrong rollouts",
}


def page(scores: Scores, table: str, drawn: Mapping[str, bytes], command: str) -> str:
    """The page.

    Args:
      scores: of the sweep.
      table: as plain text.
      drawn: PNG files by file name.
      command: what made the sweep; "" where it is not known.
    """
    title = html.escape(scores.headline[0])
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>PTRM sweep: {title}</h1>",
        f"<p>{'<br>'.join(map(html.escape, scores.headline[1:]))}</p>",
        f"<pre>{html.escape(table)}</pre>",
    ]
    for name, data in drawn.items():
        stem = name.removesuffix(".png")
        caption = html.escape(_CAPTIONS.get(stem, stem))
        encoded = base64.b64encode(data).decode()
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if command:
        parts += ["<h2>Command</h2>", f"<pre>{html.escape(command)}</pre>"]
    parts += ["<h2>Settings</h2>", _rows(dataclasses.asdict(scores.config))]
    parts += ["<h2>Provenance</h2>", _rows(scores.provenance), "</body></html>"]
    return "\n".join(parts) + "\n"


def _rows(values: Mapping[str, Any], prefix: str = "") -> str:
    """A table of names and values; nested names are joined by dots."""

    def flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for name, value in values.items():
            if isinstance(value, Mapping):
                found += flat(value, f"{prefix}{name}.")
            else:
                found.append((f"{prefix}{name}", value))
        return found

    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_text(value))}</td></tr>"
        for name, value in flat(values, prefix)
    )
    return f"<table>{cells}</table>"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
