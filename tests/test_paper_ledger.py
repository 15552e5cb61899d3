"""The ledger: every number of the paper is there, has a command, and gets the verdict it should."""

import dataclasses
import json
import re
import shutil
from typing import cast

import numpy as np
import pytest
from conftest import load_experiment
from etils import epath

from ptrm_jax import analysis, sweep
from ptrm_jax.analysis import exhibit
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.errors import SweepError
from ptrm_jax.files import signed, unsigned
from ptrm_jax.metrics import Interval
from ptrm_jax.paper import claims as claims_module, ledger
from ptrm_jax.paper.claims import SECTIONS, Claim
from ptrm_jax.sweep import report, scores

paper = load_experiment("paper")

# Typed from the specification, apart from the module's own list.
PAPER = """
87.28 98.75 99.06 83.8 85.17 95.63 86.73 7.36 9.72 14.31 8.47 9.72 15.97 62.6 66 91.2 89.8
76.4 78.3 90.4 89.5 1.3 0.1 96 86 0.6 6 -6 8 0.001 2.5 62231 94 300 10
46.7 87.5 74.1 85.7 40 57.8 87.5 74.1 85.7 40 93.3 100 88.9 85.7 80 97.8 100 88.9 85.7 80
7810 97 15 9504 65 8 15180 55 9 42108 70 7 3663 26 10 20702 62 12
"""


def claims() -> list[Claim]:
    return [claim for section in SECTIONS for claim in section.claims]


def finding(mean: float, low: float, high: float) -> Finding:
    return Finding.of("what it is", Interval(mean, low, high, 7), "points")


def write(folder, checkpoint: str, name: str, findings: dict[str, Finding]) -> None:
    Exhibit(
        name=name,
        title="T",
        caption="C",
        command=f"python experiments/figures.py {name} --checkpoint {checkpoint}",
        reading=["It says."],
        findings=findings,
        provenance={"checkpoint": {"name": checkpoint}},
    ).write(folder)


def test_every_number_of_the_paper_is_there_as_often_as_it_is():
    ours = [float(c.paper) for c in claims() if isinstance(c.paper, int | float)]
    for number in set(map(float, PAPER.split())):
        wanted = sum(float(x) == number for x in PAPER.split())
        assert ours.count(number) >= wanted, number


def test_every_claim_has_a_command_that_exists():
    for section in SECTIONS:
        path = section.command.split()[1]
        assert (paper.Path(paper.__file__).parents[1] / path).exists()
        name = section.command.split()[2]
        assert name in (*analysis.NAMES, *ledger.paper.NAMES)
        assert section.benchmark in (None, name)
        for claim in section.claims:
            assert claim.measure is None or section.benchmark is not None
            for effect in claim.effects:
                assert effect.exhibit in analysis.NAMES


@pytest.mark.parametrize(
    ("ends", "expects", "verdict"),
    [
        ((0.05, 0.01, 0.1), "positive", "reproduced effect"),
        ((0.05, -0.01, 0.1), "positive", "undecided"),
        ((-0.05, -0.1, -0.01), "positive", "contradicted"),
        ((-0.05, -0.1, -0.01), "negative", "reproduced effect"),
        ((0.05, 0.01, 0.1), "negative", "contradicted"),
        ((0.0, -0.02, 0.02), "small", "reproduced effect"),
        ((0.01, -0.01, 0.03), "small", "undecided"),
        ((0.05, 0.03, 0.06), "small", "contradicted"),
        ((-0.05, -0.06, -0.03), "small", "contradicted"),
    ],
)
def test_the_ends_of_the_interval_decide(ends, expects, verdict):
    assert ledger.effect_verdict(finding(*ends), expects) == verdict


def test_a_value_is_reproduced_where_the_interval_has_it():
    assert ledger.value_verdict(Interval(0.9, 0.85, 0.95, 9), 87.28, "%") == "reproduced"
    assert ledger.value_verdict(Interval(0.9, 0.88, 0.95, 9), 87.28, "%") == "differs"
    assert ledger.value_verdict(0.00105, 0.001, "dollars") == "reproduced"
    assert ledger.value_verdict(0.0012, 0.001, "dollars") == "differs"


def test_the_table_says_what_the_files_say(tmp_path):
    write(tmp_path / "a", "maze11", "width", {"gain_equal_depth": finding(0.1, 0.05, 0.15)})
    write(tmp_path / "b", "maze11", "q_head", {"q_right": finding(-1, -2, -0.5)})
    records = [r for f in "ab" for r in exhibit.read(tmp_path / f, analysis.NAMES)]
    text = ledger.table(records)
    (line,) = (line for line in text.splitlines() if "85.17" in line)
    assert "what it is: +10.0 points [+5.0, +15.0], n=7 (maze11-width, reproduced effect)" in line
    assert line.endswith("| reproduced effect; value needs full size |")
    (line,) = (line for line in text.splitlines() if "Q of right rollouts" in line)
    assert "contradicted" in line
    (line,) = (line for line in text.splitlines() if "98.75" in line)
    assert line.endswith("| needs checkpoint Sudoku-Extreme on an accelerator |")
    # What is shown is shown with its command.
    for label in set(re.findall(r"\((\S+), (?:reproduced|contradicted|undecided)", text)):
        assert f"- {label}: `python experiments/figures.py" in text
    assert text.startswith(f"{len(claims())} numbers of the paper.")


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """A finished sweep that stands for one of Sudoku-Extreme: small, but of that name."""
    config = sweep.SweepConfig(
        checkpoint="sudoku6",
        num_puzzles=2,
        rollouts=2,
        depth=2,
        sigmas=(0.3,),
        benchmark="sudoku-extreme",
    )
    prepared = sweep.prepare(config)
    folder = tmp_path_factory.mktemp("sweep") / "sudoku-extreme"
    report.write(scores.compute(sweep.resume(prepared, folder)), folder)
    return folder


def test_full_size_sweeps_fill_their_column(full_size, monkeypatch):
    section = SECTIONS[0]
    assert section.benchmark == "sudoku-extreme"
    measured = [
        dataclasses.replace(section.claims[0], measure=claims_module._trm(2)),
        dataclasses.replace(section.claims[1], measure=claims_module._ptrm("best_q", 2, 2)),
    ]
    shrunk = dataclasses.replace(section, claims=tuple(measured))
    monkeypatch.setattr(ledger, "SECTIONS", (shrunk,))
    text = ledger.table([], ledger.full_size([full_size]))
    rows = {
        row.choice: row.accuracy for row in scores.summary(sweep.read(full_size)) if row.depth == 2
    }
    for claim, choice in zip(measured, ("deterministic", "best_q"), strict=True):
        (line,) = (line for line in text.splitlines() if f"{claim.paper:g} %" in line)
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[4] == rows[choice].brief()
        assert cells[6] in ("differs", "reproduced")


def test_the_measures_read_what_the_benchmarks_write(tmp_path):
    """Files of `ppbench.report` and `arc_agi_2.report`, as they write them."""
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75, "num_puzzles": 4}
    methods = {
        name: {"aggregate": interval, "types": {kind: interval for kind in claims_module._TYPES}}
        for name in ("TRM, D=16", "TRM, D=48")
        + tuple(f"sigma 0.2, D={d}, best-Q@100" for d in (16, 48))
    }
    folder = epath.Path(tmp_path)
    text = {"methods": methods, "dollars_per_puzzle": 0.002}
    (folder / "ppbench.json").write_text(json.dumps(text))
    votes = [
        {"vote": name, "depth": depth, "pass_at": {f"pass@{k}": interval for k in (1, 2, 100)}}
        for name, depth in (
            ("TRM, D=16", 16),
            ("TRM, D=400", 400),
            ("sigma 0.2, best-Q@25", 16),
            ("sigma 0.2, all vote@25", 16),
        )
    ]
    votes.append({"rows": "TRM, D=16", "depth": 16})
    (folder / "arc_scores.json").write_text(json.dumps(votes))
    read, unread = 0, cast(scores.Scores, None)
    for section in SECTIONS:
        if section.benchmark in ("ppbench", "arc-agi-2"):
            for claim in section.claims:
                if claim.measure is not None:
                    value = claim.measure(unread, folder)
                    assert value in (Interval(**interval), 0.002)
                    read += 1
    assert read == 6 + 4 + 20 + 1 + 4


@pytest.mark.parametrize("empty", [True, False])
def test_the_command_refuses_folders_without_results(empty, tmp_path, capsys):
    arguments = ["--figures" if empty else "--sweeps", str(tmp_path)]
    if not empty:
        write(tmp_path / "a", "maze11", "width", {"x": finding(0, 0, 0)})
        arguments += ["--figures", str(tmp_path / "a")]
    assert paper.main(arguments) == 2
    message = capsys.readouterr().err
    assert ("must hold figures" if empty else "is not the folder of a sweep") in " ".join(
        message.split()
    )


def test_a_sweep_of_no_benchmark_is_refused(full_size, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(full_size, other)
    stored = unsigned(json.loads((other / "config.json").read_text()))
    stored["config"]["benchmark"] = None
    (other / "config.json").write_text(json.dumps(signed(stored)))
    with pytest.raises(SweepError, match="must be a sweep of"):
        ledger.full_size([other])


def test_the_report_has_figures_and_ledger(tmp_path, capsys):
    folder = tmp_path / "results" / "default"
    write(folder, "maze11", "width", {"gain_equal_depth": finding(0.1, 0.05, 0.15)})
    (folder / "width.png").write_bytes(b"")
    target = tmp_path / "EXPERIMENTS.md"
    assert paper.main(["--figures", str(folder), "--report", str(target)]) == 0
    text = target.read_text()
    assert text.startswith("# Experiments") and "It says." in text
    assert "python experiments/figures.py width --checkpoint maze11" in text
    assert capsys.readouterr().out.strip() in text
    assert str(tmp_path) not in text
    assert not np.any([line.endswith(" ") for line in text.splitlines()])
