"""PPBench's golden set, and our rules against those of its verifier, pzpr.js.

The golden set comes with the package ppbench, the verifier too; it runs in node.
"""

import base64
import importlib.util
import itertools
import json
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ppbench_boards import tokens

from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import PencilPuzzle
from ptrm_jax.tasks.ppbench.puzzle import STATES, TYPES, rooms_of, tapa_clue

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ppbench") is None,
    reason="needs the package ppbench, which holds the golden set and the verifier",
)
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")

CORRUPTED = 500

SCRIPT = """
const pzpr = require(process.argv[1]);
const jobs = JSON.parse(require("fs").readFileSync(0, "utf8"));
const puzzle = new pzpr.Puzzle();
const results = jobs.map(([text, clicks]) => {
  puzzle.open(text);
  puzzle.setMode("play");
  for (const click of clicks) {
    const [mouse, key] = click.split(";");
    const [, button, x, y] = mouse.split(",");
    puzzle.mouse.inputPath(button, +x, +y);
    if (key) { puzzle.key.inputKeys(key.split(",")[1]); }
  }
  return [puzzle.check(false).complete, puzzle.getFileData()];
});
console.log(JSON.stringify(results));
"""


def folder() -> Path:
    return Path(importlib.util.find_spec("ppbench").origin).parent


def verdicts(jobs: list[tuple[str, list[str]]]) -> list[tuple[bool, str]]:
    """What pzpr.js says of boards, and its own text of them, after clicks."""
    pzpr = folder() / "vendor" / "pzprjs" / "dist" / "js" / "pzpr.js"
    done = subprocess.run(
        ["node", "-e", SCRIPT, str(pzpr)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def to_text(puzzle: PencilPuzzle) -> str:
    """The puzzle and its answer as pzprv3 text, which pzpr.js opens."""
    problem = np.array(puzzle.problem, object)
    answer = np.array(puzzle.answer, object)
    grids = [problem, answer]
    sizes = [puzzle.height, puzzle.width]
    if puzzle.pid == "sudoku":
        sizes = sizes[:1]
        grids[1] = np.where(problem == ".", answer, ".")
    elif puzzle.pid in ("lightup", "nurikabe", "tapa"):
        grids = [np.where(problem == ".", answer, problem)]
    elif puzzle.pid == "heyawake":
        rooms = rooms_of(np.array(puzzle.walls))
        sizes.append(rooms.max() + 1)
        grids.insert(0, rooms.astype(str))
    lines = ["pzprv3", puzzle.pid, *map(str, sizes)]
    return "\n".join([*lines, *(" ".join(row) for grid in grids for row in grid), ""])


def corrupted(puzzles: list[PencilPuzzle], count: int, seed: int) -> list[PencilPuzzle]:
    """Answers with up to three cells changed, to puzzles that have lost some of their givens.

    Without givens a change often leaves the answer right, so both verdicts occur.
    """
    rng = np.random.default_rng(seed)
    made = []
    while len(made) < count:
        puzzle = puzzles[rng.integers(len(puzzles))]
        keep = rng.choice([0, 0.5, 1])
        problem = [
            [
                # Black cells lose their number, others their given; islands may be of any size.
                symbol
                if symbol == "." or rng.random() < keep
                else {"lightup": "-", "nurikabe": "-", "tapa": "-", "shakashaka": "5"}.get(
                    puzzle.pid, "."
                )
                for symbol in row
            ]
            for row in puzzle.problem
        ]
        open_cells = replace(puzzle, problem=problem, moves=None).open_cells
        answer = [list(row) for row in puzzle.answer]
        for cell in rng.choice(open_cells, rng.integers(0, 4)).tolist():
            row, column = divmod(cell, puzzle.width)
            answer[row][column] = str(rng.choice(list(STATES[puzzle.pid][1:])))
        made.append(replace(puzzle, problem=problem, answer=answer, moves=None))
    return made


@pytest.fixture(scope="module")
def golden() -> list[PencilPuzzle]:
    return ppbench.read_golden()


def test_the_papers_filter_gives_the_papers_counts(golden):
    assert Counter(puzzle.pid for puzzle in golden) == dict.fromkeys(TYPES, 15)
    kept = Counter(puzzle.pid for puzzle in ppbench.paper_filter(golden))
    assert [kept[pid] for pid in TYPES] == [15, 8, 9, 7, 10, 12]
    assert sum(kept.values()) - kept["shakashaka"] == 49


def test_golden_puzzles_go_through_tokens_and_back(golden):
    fitting = [puzzle for puzzle in golden if max(puzzle.height, puzzle.width) <= 10]
    assert len(fitting) > 61
    inputs, labels = (np.stack(x) for x in zip(*map(tokens, fitting), strict=True))
    for puzzle, x, y in zip(fitting, inputs, labels, strict=True):
        assert ppbench.decode(x, y) == PencilPuzzle(
            puzzle.pid, puzzle.problem, puzzle.answer, puzzle.walls
        )
    assert ppbench.satisfies_rules(labels, inputs).all()
    assert not ppbench.satisfies_rules(inputs, inputs).any()


@needs_node
def test_moves_are_read_as_the_verifier_reads_them(golden):
    """The URL and the clicks of the file lead in pzpr.js to the puzzle and the answer read here."""
    jobs, puzzles = [], iter(golden)
    for line in (folder() / "bundled" / "golden_300.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["pid"] in TYPES:
            data = base64.b64decode(row["solution_enc"])
            clicks = bytes(a ^ b for a, b in zip(data, itertools.cycle(b"ppbench"), strict=False))
            jobs.append((row["puzzlink_url"], json.loads(clicks)["moves_full"]))
            assert next(puzzles).name.endswith(row["puzzlink_url"])
    assert len(jobs) == 90
    results = verdicts(jobs)
    assert all(complete for complete, _ in results)
    for puzzle, (_, text) in zip(golden, results, strict=True):
        words = [tapa_clue(word) if "," in word else word for word in text.split()]
        assert words == to_text(puzzle).split()


@needs_node
@pytest.mark.parametrize("pid", TYPES)
def test_rules_agree_with_the_verifier(golden, pid):
    filtered = [puzzle for puzzle in ppbench.paper_filter(golden) if puzzle.pid == pid]
    puzzles = filtered + corrupted(filtered, CORRUPTED, seed=TYPES.index(pid))
    theirs = [complete for complete, _ in verdicts([(to_text(r), []) for r in puzzles])]
    assert all(theirs[: len(filtered)])
    assert 20 < sum(theirs[len(filtered) :]) < CORRUPTED - 100  # both verdicts are tried
    assert [ppbench.is_solved(puzzle) for puzzle in puzzles] == theirs
    inputs, labels = (np.stack(x) for x in zip(*map(tokens, puzzles), strict=True))
    np.testing.assert_array_equal(ppbench.satisfies_rules(labels, inputs), theirs)
