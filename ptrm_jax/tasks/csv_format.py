"""Files with one puzzle per row: CSV with the columns question and answer, source and rating.

Columns are found by name, in any order, others are ignored. Files are written with the columns
``source,question,answer,rating``. B is the number of puzzles, S the number of cells.
"""

import csv
import dataclasses
import io
import itertools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.files import write_text
from ptrm_jax.reading import file_size, lines as lines_of, shown
from ptrm_jax.tasks.task import integers
from ptrm_jax.tasks.text import file_encoding

CSV_COLUMNS = ("source", "question", "answer", "rating")
UNKNOWN_RATING = -1.0

_OTHER_NAMES = {
    "question": "puzzle quiz problem input unsolved given board".split(),
    "answer": "solution output label solved target result".split(),
    "rating": ["difficulty"],
    "source": [],
}
_SMALLEST_UNNAMED = 36
"""Cells of the smallest board that is recognised without a header."""


@dataclasses.dataclass(frozen=True)
class CsvFormat:
    """Reads and writes the files of one task.

    Attributes:
      encode: tokens [S] of a question or answer; raises InputError.
      decode: text of one board [S].
      check_inputs: raises InputError if inputs [B, S] are not puzzles.
      satisfies_rules: for answers and questions [B, S], whether each is right: [B] bool.
      wrong_answer: the message that refuses an answer [S].
    """

    encode: Callable[[str], np.ndarray]
    decode: Callable[[np.ndarray], str]
    check_inputs: Callable[[np.ndarray], object]
    satisfies_rules: Callable[[np.ndarray, np.ndarray], np.ndarray]
    wrong_answer: Callable[[np.ndarray], str]

    def read(
        self, path: str | os.PathLike[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Reads and checks a file: inputs [B, S], labels [B, S], ratings [B] float64, B sources.

        Every answer is checked to be right, but not to be the only right one.

        Raises:
          InputError: the file has no rows or no columns of questions and answers, a row is
            malformed or differs in size from the first, or an answer is wrong. The message begins
            ``path:line:``.
          OSError: the file cannot be read.
        """
        file_size(path)
        lines: list[int] = []  # the last line of each row
        sources: list[str] = []
        inputs: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        ratings: list[float] = []
        with open(path, newline="", encoding=file_encoding(path)) as file:
            reader = csv.reader(lines_of(file, path), strict=True)
            try:
                first = next(reader, [])
                named = _named_columns(first)
                columns = self._unnamed_columns(first) if named is None else named
                for row in itertools.chain([first] if named is None else [], reader):
                    source, question, answer, rating = self._parse(row, columns, len(first))
                    num_cells = len(inputs[0]) if inputs else len(question)
                    if not len(question) == len(answer) == num_cells:
                        raise InputError(
                            f"all boards of a file must have one size, here {num_cells} cells; "
                            f"question has {len(question)} and answer {len(answer)}; use one file "
                            "per size"
                        )
                    lines.append(reader.line_num)
                    sources.append(source)
                    inputs.append(question)
                    labels.append(answer)
                    ratings.append(rating)
                if not inputs:
                    raise InputError(
                        "a puzzle file must hold at least one puzzle; it has 0 rows below its "
                        "header; add rows or pass another path"
                    )
            except (csv.Error, UnicodeDecodeError) as error:
                raise InputError(
                    f"{os.fspath(path)}:{max(reader.line_num, 1)}: a puzzle file must be CSV in "
                    f"UTF-8; reading stopped here with {str(error)!r}; correct the quotes or the "
                    "encoding"
                ) from error
            except ValueError as error:
                raise InputError(f"{os.fspath(path)}:{max(reader.line_num, 1)}: {error}") from None

        puzzles, answers = np.stack(inputs), np.stack(labels)
        wrong = np.flatnonzero(~self.satisfies_rules(answers, puzzles))
        if wrong.size:
            row = wrong[0]
            raise InputError(f"{os.fspath(path)}:{lines[row]}: {self.wrong_answer(answers[row])}")
        return puzzles, answers, np.array(ratings, np.float64), sources

    def write(
        self,
        path: str | os.PathLike[str],
        inputs: Any,
        labels: Any,
        sources: Sequence[str] | None = None,
        ratings: Any | None = None,
    ) -> None:
        """Writes what `read` reads; checks everything before it opens the file.

        Args:
          path: file to write, replaced if it exists.
          inputs: [B, S] integer puzzles, B at least 1.
          labels: [B, S] integer, the solutions.
          sources: B strings; empty by default.
          ratings: [B] finite numbers; -1, unknown, by default.

        Raises:
          InputError: shapes or lengths disagree, an input is not a puzzle, a label is wrong, or a
            rating is not finite.
          StorageError: the file cannot be written.
        """
        inputs, labels = integers(inputs, "inputs"), integers(labels, "labels")
        if inputs.ndim != 2 or inputs.shape != labels.shape or not len(inputs):
            raise InputError(
                "inputs and labels must have one shape [B, S] with B at least 1; inputs has shape "
                f"{inputs.shape} and labels {labels.shape}; pass one row per puzzle"
            )
        if sources is None:
            sources = [""] * len(inputs)
        if ratings is None:
            ratings = np.full(len(inputs), UNKNOWN_RATING)
        ratings = np.asarray(ratings, np.float64)
        if len(sources) != len(inputs) or ratings.shape != inputs.shape[:1]:
            raise InputError(
                f"sources and ratings must have one entry per puzzle; there are {len(inputs)} "
                f"puzzles, {len(sources)} sources and ratings of shape {ratings.shape}; pass "
                "matching rows"
            )
        if not np.isfinite(ratings).all():
            row = int(np.flatnonzero(~np.isfinite(ratings))[0])
            raise InputError(
                f"ratings must be finite; row {row} has rating {ratings[row]}; pass "
                f"{UNKNOWN_RATING:g} if it is unknown"
            )
        self.check_inputs(inputs)
        wrong = np.flatnonzero(~self.satisfies_rules(labels, inputs))
        if wrong.size:
            raise InputError(f"row {wrong[0]}: {self.wrong_answer(labels[wrong[0]])}")

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for source, puzzle, answer, rating in zip(
            sources, inputs, labels, ratings.tolist(), strict=True
        ):
            number = int(rating) if rating.is_integer() else rating
            writer.writerow([source, self.decode(puzzle), self.decode(answer), number])
        write_text(path, text.getvalue())

    def _unnamed_columns(self, row: list[str]) -> dict[str, int]:
        """Places of the question and the answer of a file without a header, from its first row."""
        boards = []
        for place, field in enumerate(row):
            try:
                if len(self.encode(field)) >= _SMALLEST_UNNAMED:
                    boards.append(place)
            except ValueError:
                continue
        if len(boards) != 2:
            raise InputError(
                "a puzzle file must begin with the columns question and answer (or quizzes and "
                "solutions, puzzle and solution), in any order, such as "
                f"{','.join(CSV_COLUMNS)}; its header is {','.join(row)[:200]!r}; add the header "
                "or pass another path"
            )
        return {"question": boards[0], "answer": boards[1]}

    def _parse(
        self, row: list[str], columns: dict[str, int], num_fields: int
    ) -> tuple[str, np.ndarray, np.ndarray, float]:
        if len(row) != num_fields:
            raise InputError(
                f"a row must have {num_fields} fields, as the first; it has {len(row)}; add or "
                "remove fields"
            )
        fields = {name: row[place] for name, place in columns.items()}
        rating = fields.get("rating", "").strip()
        try:
            number = float(rating) if rating else UNKNOWN_RATING
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"a rating must be a finite number; rating is {shown(rating)}; write "
                f"{UNKNOWN_RATING:g} if it is unknown"
            )
        boards = []
        for column in ("question", "answer"):
            try:
                boards.append(self.encode(fields[column]))
            except ValueError as error:
                raise InputError(f"{column}: {error}") from None
        return fields.get("source", ""), boards[0], boards[1], number


def _named_columns(header: list[str]) -> dict[str, int] | None:
    """Place of each column by name; None without both question and answer.

    Raises:
      InputError: a column is there twice.
    """
    names = [name.strip().lower() for name in header]
    columns: dict[str, int] = {}
    for column, others in _OTHER_NAMES.items():
        allowed = {word + plural for word in (column, *others) for plural in ("", "s", "zes")}
        found = [place for place, name in enumerate(names) if name in allowed]
        if names.count(column) == 1:
            found = [names.index(column)]  # its own name is preferred
        if len(found) > 1 and column in ("question", "answer"):
            raise InputError(
                f"a puzzle file must have one column for the {column}; "
                f"{' and '.join(names[place] for place in found)} could be; rename one"
            )
        if len(found) == 1:
            columns[column] = found[0]
    return columns if {"question", "answer"} <= columns.keys() else None


def first_question(path: str | os.PathLike[str]) -> str | None:
    """The first question of a ``.csv`` file, not decoded; None if there is none."""
    if os.path.splitext(path)[1].lower() != ".csv":
        return None
    with open(path, newline="", encoding=file_encoding(path), errors="replace") as file:
        try:
            first, *rest = itertools.islice(csv.reader(lines_of(file, path)), 2)
            columns = _named_columns(first)
            return max(first, key=len) if columns is None else rest[0][columns["question"]]
        except (csv.Error, ValueError, IndexError):  # too few rows or fields
            return None
