"""Tables in Markdown, and text that stays text in it."""

import re
import urllib.parse
from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Text of one line, in which HTML, links, code and cells of tables have no effect."""
    return re.sub(r"[\\`|]|<(?=[A-Za-z/!?])|\](?=[\[(:])", r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """Text of one line as code, also in a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def target(path: str) -> str:
    """A relative path as the target of a link."""
    return urllib.parse.quote(path)


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, align_right: bool = False
) -> str:
    """A table; each of its lines ends with a newline.

    Args:
      titles: of the columns.
      rows: cells of each row, one for each column.
      align_right: all columns but the first.
    """
    rules = ["---", *["---:" if align_right else "---"] * (len(titles) - 1)]
    lines = [_line(titles), f"|{'|'.join(rules)}|", *map(_line, rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
