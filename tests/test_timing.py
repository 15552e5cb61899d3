"""Timing: turns, rates, ratios and their table."""

import time

import pytest
from conftest import load_experiment

from ptrm_jax import timing


def test_sides_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two calls each that do not count; the rate is work over time."""
    now, calls = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def side(name: str, took: float) -> timing.Side:
        def run() -> None:
            calls.append(name)
            now[0] += took * len(calls)

        return timing.Side(run, 60.0)

    found = timing.rates({"a": side("a", 1.0), "b": side("b", 2.0)}, 2)
    assert "".join(calls) == "aabb" + "abab"
    assert found == {"a": [60 / 5, 60 / 7], "b": [60 / 12, 60 / 16]}


def test_ratios_are_of_each_round() -> None:
    assert timing.ratio([1.0, 6.0, 4.0], [2.0, 2.0, 2.0]) == (2.0, 0.5, 3.0)
    assert timing.ratio([1.0, 6.0], [2.0, 2.0]).median == 1.75


def test_the_table_compares_the_first_sides_with_all_others() -> None:
    rates = {"ours": [2.0, 4.0, 3.0], "other": [1.0, 1.0, 2.0]}
    titles, first, second = timing.table(rates, "steps", 2 * 10**9).splitlines()
    assert titles.split() == ["steps/s", "GFLOP/s", "ours", "against", "it"]
    assert first.split() == ["ours", "3.00", "6"]
    assert second.split() == ["other", "1.00", "2", "2.00", "[1.50,", "4.00]"]
    assert second.index("2.00  [1.50, 4.00]") + 18 == len(titles)
    both = timing.table(rates, "steps", 10**9, num_ours=2).splitlines()
    assert "0.50  [0.25, 0.67]" in both[1]


def test_matrix_products_do_the_work_they_say() -> None:
    """In units of 1 GFLOP."""
    sides = timing.matrix_products(10**9)
    assert list(sides) == ["float32 GEMM", "bfloat16 GEMM"]
    for side in sides.values():
        assert side.work == pytest.approx(16 * 17.18, rel=1e-3)


def test_the_benchmark_prints_a_race(capsys: pytest.CaptureFixture[str]) -> None:
    sides = {name: timing.Side(lambda: None, 1.0) for name in ("ours", "other")}
    load_experiment("benchmark").race(sides, "steps", 10**9, 2)
    first, blank, titles, *lines = capsys.readouterr().out.splitlines()
    assert first == "2 rounds; medians, and of ratios [lowest, highest]" and not blank
    assert "ours against it" in titles and [line.split()[0] for line in lines] == list(sides)
