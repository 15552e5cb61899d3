"""Model cards: what a checkpoint is, how it was trained, what it scores. No figure is typed."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from ptrm_jax import charts, checkpoint, metrics, sweep
from ptrm_jax.errors import InputError
from ptrm_jax.files import write_bytes, write_text
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Result, report
from ptrm_jax.training.loop import read_log


def model_card(
    name: str,
    model: str | os.PathLike[str],
    results: Sequence[Result],
    *,
    log: str | os.PathLike[str] | None = None,
    command: str = "",
    notes: str = "",
) -> str:
    """The card of a checkpoint that this package trained, as Markdown.

    Args:
      name: of the checkpoint.
      model: its directory.
      results: sweeps of this very checkpoint, one per data set.
      log: `log.jsonl` of its run, for the time it took.
      command: what trained it, as one would type it.
      notes: what else a reader must know, Markdown.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      ValueError: a sweep is of another checkpoint, or the checkpoint was not trained here.
    """
    manifest = checkpoint.read_manifest(model)
    provenance = manifest["provenance"]
    if provenance.get("trained_by") != "ptrm_jax":
        raise InputError(f"{os.fspath(model)} was not trained by ptrm_jax; write its card by hand")
    for result in results:
        digest = result.provenance["checkpoint"]["digest"]
        if digest != manifest["digest"]:
            raise InputError(
                f"a sweep is of checkpoint {digest[:8]}, not of {manifest['digest'][:8]}; run it "
                "again"
            )
    parts = [f"# {name}\n", _facts(manifest, log, command)]
    if notes:
        parts.append(notes.strip() + "\n")
    parts.append(_HOW_TO_READ)
    parts += [_scores(name, result) for result in results]
    parts += [f"![{alt}]({picture}.png)\n" for picture, alt in PICTURES.items() if results]
    return "\n".join(parts)


PICTURES = {
    "accuracy_against_width": "Choices by width, beside the TRM at equal depth and compute",
    "accuracy_against_depth": "Depth alone against width",
    "q_of_right_and_wrong": "Q of right and of wrong rollouts",
}
"""Pictures of the first sweep that a card shows."""

_HOW_TO_READ = """## What it scores

Puzzles solved exactly in percent, with 95 % intervals over puzzles; noise on z before every step.
Gains are paired by puzzle, against the deterministic TRM at equal depth and at equal compute (one
quiet rollout for K times as many steps). `pass` needs the labels: it bounds every choice.
"""


def _facts(manifest: dict[str, Any], log: str | os.PathLike[str] | None, command: str) -> str:
    cfg, provenance = manifest["config"], manifest["provenance"]
    config = provenance["config"]
    values = sum(int(np.prod(leaf["shape"])) for leaf in manifest["leaves"].values())
    decay = config["min_learning_rate_ratio"]
    rate = f"learning rate {config['learning_rate']:g} after {config['warmup_steps']} steps" + (
        "" if decay == 1 else f", cosine to {decay:g} of it"
    )
    kind = f"`{cfg['variant']}`, positions {cfg['positions']}"
    rows = {
        "digest, size": f"`{manifest['digest'][:8]}`, {values:,} values",
        "architecture": (
            f"{kind}, h {cfg['hidden_size']}, {cfg['num_layers']} layers, cycles "
            f"{cfg['H_cycles']} x {cfg['L_cycles']}, prefix {cfg['prefix_len']}, "
            f"S {cfg['seq_len']}, V {cfg['vocab_size']}, {cfg['forward_dtype']}"
            + (", Q from all positions" if cfg.get("q_pooling") == "attention" else "")
        ),
        "trained on": (
            f"{provenance['data']['num_examples']:,} puzzles of "
            + ", ".join(f"`{source}`" for source in config["data"])
            + f" (digest `{provenance['data']['digest'][:8]}`), symmetries of {config['task']}"
            + (f", 0 to {config['extra_clues']} extra clues shown" if config["extra_clues"] else "")
        ),
        "optimiser": (
            f"{config['optimizer']}, {rate}, weight decay {config['weight_decay']:g}, "
            f"{config['loss']}, EMA {config['ema']:g}" + (", warmed up" * config["ema_warmup"])
        ),
        "length": f"{provenance['step']:,} optimiser steps of {config['batch_size']} rows"
        + _hours(log, provenance["step"]),
        "seed": str(config["seed"]),
        "commit": f"`{provenance['commit'] or 'unknown'}`",
        "versions": ", ".join(f"{k} {v}" for k, v in provenance["versions"].items()),
    }
    if start := provenance.get("start"):
        rows["started from"] = f"`{config['start_from']}`, digest `{start['digest'][:8]}`" + (
            f", after {start['provenance']['step']:,} steps"
            if "step" in start["provenance"]
            else ""
        )
    table = "".join(f"| {name} | {text} |\n" for name, text in rows.items())
    platform = provenance["platform"]
    hardware = f"{platform['devices']} x {platform['device_kind']} ({platform['machine']})"
    table += f"| hardware | {hardware} |\n"
    text = f"| | |\n|---|---|\n{table}"
    if command:
        text += f"\n    {command}\n"
    if log is not None:
        text += "\n![Losses, accuracy and scores while it trained](curves.png)\n"
    return text


def _hours(log: str | os.PathLike[str] | None, step: int) -> str:
    if log is None:
        return ""
    seconds = [
        r["seconds"] for r in read_log(Path(log)) if r["kind"] == "train" and r["step"] <= step
    ]
    if not seconds:
        return ""
    minutes = max(seconds) / 60
    time = f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"
    return f", {time} without evaluations"


def _scores(name: str, result: Result) -> str:
    config, provenance = result.config, result.provenance
    data = provenance["data"]
    sigmas = " ".join(f"{sigma:g}" for sigma in config.sigmas)
    lines = [
        f"### {Path(data['name']).name}\n",
        f"{data['num_puzzles']} of {data['of']} puzzles (digest `{data['digest'][:8]}`), seed "
        + ", ".join(map(str, config.seeds))
        + ":\n",
        f"    python experiments/ptrm_sweep.py --checkpoint {name} --data {Path(data['name']).name}"
        f" --sigmas {sigmas} --rollouts {config.rollouts} --depth {config.depth} --num-puzzles "
        f"{data['num_puzzles']}" + ("" if config.equal_compute else " --no-equal-compute") + "\n",
        _gains(result),
        _widths(result),
        _depths(result),
        _q_head(result),
    ]
    return "\n".join(lines)


def _cell(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None else interval.brief(sign)


def _gains(result: Result) -> str:
    rules = sweep.has_rules(result)
    titles = ["", "solved", "gain at equal depth", "gain at equal compute"]
    titles += ["rules hold"] if rules else []
    text = f"| {' | '.join(titles)} |\n" + "|---" * len(titles) + "|\n"
    for row in sweep.summary(result):
        label = f"TRM, D={row.depth}"
        if row.method == "PTRM":
            choice = "one rollout (mean)"
            if row.choice != "mean":
                choice = f"{sweep.CHOICE_NAMES[row.choice]}@{row.rollouts}"
            label = f"PTRM sigma {row.sigma:g}, {choice}"
        cells = [label, _cell(row.accuracy), _cell(row.gain_equal_depth, "+")]
        cells += [_cell(row.gain_equal_compute, "+")] + ([_cell(row.validity)] if rules else [])
        text += f"| {' | '.join(cells)} |\n"
    return text


def _widths(result: Result) -> str:
    """Choices by width at the full depth, one line per sigma and choice."""
    depth, widths = result.config.depth, sweep.widths(result.config.rollouts)
    text = f"By width, D={depth}:\n\n| K | " + " | ".join(map(str, widths)) + " |\n"
    text += "|---" * (len(widths) + 1) + "|\n"
    for sigma in result.config.sigmas:
        for choice, metric in sweep.choices(result).items():
            values = [
                sweep.over_seeds(sweep.runs_of(result, sigma), metric, k, depth).mean()
                for k in widths
            ]
            label = f"sigma {sigma:g}, {sweep.CHOICE_NAMES[choice]}"
            text += f"| {label} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |\n"
    return text


def _depths(result: Result) -> str:
    """Deterministic TRM and best-Q by depth."""
    config, record = result.config, result.deterministic.record
    depths = [d for d in sweep.widths(config.baseline_depth)]
    text = "By depth:\n\n| D | " + " | ".join(map(str, depths)) + " |\n"
    text += "|---" * (len(depths) + 1) + "|\n"
    quiet = [100 * record.at(d).correct.mean() for d in depths]
    text += "| TRM | " + " | ".join(f"{v:.1f}" for v in quiet) + " |\n"
    for sigma in config.sigmas:
        runs = sweep.runs_of(result, sigma)
        cells = [
            f"{100 * sweep.over_seeds(runs, sweep.best_q, config.rollouts, d).mean():.1f}"
            if d <= config.depth
            else ""
            for d in depths
        ]
        text += f"| best-Q@{config.rollouts}, sigma {sigma:g} | " + " | ".join(cells) + " |\n"
    return text


def _q_head(result: Result) -> str:
    """How Q tells right rollouts from wrong ones after the last step."""
    text = (
        "The Q head after the last step:\n\n"
        "| sigma | AUC | sign right | mean Q, right | mean Q, wrong |\n|---|---|---|---|---|\n"
    )
    for run in result.runs:
        at = run.record.at(result.config.depth)
        area = metrics.q_auc_interval(at.correct, at.q_logit, finite=at.finite)
        sign = metrics.q_sign_accuracy(at.correct, at.q_logit, finite=at.finite)
        right, wrong = at.correct & at.finite, ~at.correct & at.finite
        means = [f"{at.q_logit[rows].mean():+.1f}" if rows.any() else "" for rows in (right, wrong)]
        ends = f"{area.mean:.3f} [{area.low:.3f}, {area.high:.3f}]"
        if not (right.any() and wrong.any()):
            ends = "none wrong" if right.any() else "none right"
        text += f"| {run.sigma:g} | {ends} | {100 * sign:.1f} % | " + " | ".join(means) + " |\n"
    return text


def write_card(
    directory: Path, text: str, *, name: str, curves: Path, results: Sequence[Result]
) -> None:
    """Puts a card and the pictures it shows into a checkpoint's directory.

    Args:
      directory: of the checkpoint.
      text: of `model_card`.
      name: of the checkpoint; the pictures name it so, wherever it was when it was scored.
      curves: picture of its training.
      results: as for `model_card`; the pictures are of the first.
    """
    pictures = {"curves.png": curves.read_bytes()}
    for result in results[:1]:
        said = result.provenance
        named = said | {
            "checkpoint": said["checkpoint"] | {"name": name},
            "data": said["data"] | {"name": Path(said["data"]["name"]).name},
        }
        for picture in PICTURES:
            figure = report.PICTURES[picture](dataclasses.replace(result, provenance=named))
            pictures[f"{picture}.png"] = charts.png(figure, dpi=100)
    write_text(epath.Path(directory) / "README.md", text)
    for file, data in pictures.items():
        write_bytes(epath.Path(directory) / file, data)
