"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


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
