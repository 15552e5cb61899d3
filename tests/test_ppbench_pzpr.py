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

from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench.records import STATES, TYPES, Record

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


def corrupted(records: list[Record], count: int, seed: int) -> list[Record]:
    """Answers with up to three cells changed, to puzzles that have lost some of their givens.

    Without givens a change often leaves the answer right, so both verdicts occur.
    """
    rng = np.random.default_rng(seed)
    made = []
    while len(made) < count:
        record = records[rng.integers(len(records))]
        keep = rng.choice([0, 0.5, 1])
        problem = [
            [
                # Black cells lose their number, others their given; islands may be of any size.
                symbol
                if symbol == "." or rng.random() < keep
                else {"lightup": "-", "nurikabe": "-", "tapa": "-", "shakashaka": "5"}.get(
                    record.pid, "."
                )
                for symbol in row
            ]
            for row in record.problem
        ]
        open_cells = replace(record, problem=problem, moves=None).open_cells
        answer = [list(row) for row in record.answer]
        for cell in rng.choice(open_cells, rng.integers(0, 4)).tolist():
            row, column = divmod(cell, record.width)
            answer[row][column] = str(rng.choice(list(STATES[record.pid][1:])))
        made.append(replace(record, problem=problem, answer=answer, moves=None))
    return made


@pytest.fixture(scope="module")
def golden() -> list[Record]:
    return ppbench.read_golden()


def test_the_papers_filter_gives_the_papers_counts(golden):
    assert Counter(record.pid for record in golden) == dict.fromkeys(TYPES, 15)
    kept = Counter(record.pid for record in ppbench.paper_filter(golden))
    assert [kept[pid] for pid in TYPES] == [15, 8, 9, 7, 10, 12]
    assert sum(kept.values()) - kept["shakashaka"] == 49


def test_golden_puzzles_go_through_tokens_and_back(golden):
    fitting = [record for record in golden if max(record.height, record.width) <= 10]
    assert len(fitting) > 61
    inputs = np.stack([ppbench.encode_problem(record) for record in fitting])
    labels = np.stack([ppbench.encode_answer(record) for record in fitting])
    for record, x, y in zip(fitting, inputs, labels, strict=True):
        back = ppbench.decode(x, y)
        expected = (record.pid, record.problem, record.answer, record.walls)
        assert (back.pid, back.problem, back.answer, back.walls) == expected
    assert ppbench.satisfies_rules(labels, inputs).all()
    assert not ppbench.satisfies_rules(inputs, inputs).any()


def test_examples_follow_the_moves_of_the_solution(golden):
    rng = np.random.default_rng(0)
    for record in ppbench.paper_filter(golden)[::5]:
        inputs, labels = ppbench.training_examples(record, rng)
        np.testing.assert_array_equal(inputs[0], ppbench.encode_problem(record))
        assert ppbench.satisfies_rules(labels, inputs).all()
        # Turned back, each state is the one after some number of moves.
        states = {
            ppbench.vocabulary.encode_state(record, dict(record.moves[:n])).tobytes()
            for n in range(len(record.moves))
        }
        size = {"height": record.height, "width": record.width}
        for x in inputs:
            images = {ppbench.turn(x, image, **size).tobytes() for image in range(8)}
            assert images & states


@needs_node
def test_moves_are_read_as_the_verifier_reads_them(golden):
    """The raw clicks of the file, made in pzpr.js, lead to our answers."""
    jobs, records = [], iter(golden)
    for line in (folder() / "bundled" / "golden_300.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["pid"] in TYPES:
            data = base64.b64decode(row["solution_enc"])
            clicks = bytes(a ^ b for a, b in zip(data, itertools.cycle(b"ppbench"), strict=False))
            jobs.append((row["puzzlink_url"], json.loads(clicks)["moves_full"]))
            assert next(records).name.endswith(row["puzzlink_url"])
    assert len(jobs) == 90
    results = verdicts(jobs)
    assert all(complete for complete, _ in results)
    for record, (_, text) in zip(golden, results, strict=True):
        theirs = ppbench.from_pzprv3(text)
        assert (theirs.problem, theirs.answer) == (record.problem, record.answer)


@needs_node
@pytest.mark.parametrize("pid", TYPES)
def test_rules_agree_with_the_verifier(golden, pid):
    filtered = [record for record in ppbench.paper_filter(golden) if record.pid == pid]
    records = filtered + corrupted(filtered, CORRUPTED, seed=TYPES.index(pid))
    theirs = [complete for complete, _ in verdicts([(ppbench.to_pzprv3(r), []) for r in records])]
    assert all(theirs[: len(filtered)])
    assert 20 < sum(theirs[len(filtered) :]) < CORRUPTED - 100  # both verdicts are tried
    assert [ppbench.is_solved(record) for record in records] == theirs
    inputs = np.stack([ppbench.encode_problem(record) for record in records])
    labels = np.stack([ppbench.encode_answer(record) for record in records])
    np.testing.assert_array_equal(ppbench.satisfies_rules(labels, inputs), theirs)


@needs_node
def test_urls_are_read_as_the_verifier_reads_them(golden):
    """What to_url writes, pzpr.js opens as what to_pzprv3 writes."""
    records = [replace(record, answer=None, moves=None) for record in golden]
    dead_ends = []
    for record, (_, text) in zip(
        records, verdicts([(ppbench.to_url(record), []) for record in records]), strict=True
    ):
        theirs = ppbench.from_pzprv3(text)
        assert theirs.problem == record.problem
        if theirs.walls != record.walls:
            dead_ends.append(record)
    # Walls that end inside a room are lost in the text; one puzzle has some.
    assert [(r.pid, r.height, r.width) for r in dead_ends] == [("heyawake", 8, 8)]
