"""Model cards: how a checkpoint was trained, and what it scores."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from ptrm_jax import charts, checkpoint, markdown
from ptrm_jax.errors import InputError
from ptrm_jax.files import write_bytes, write_text
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Scores, pictures
from ptrm_jax.sweep.config import powers_of_two
from ptrm_jax.sweep.scores import CHOICE_NAMES, MethodScore, RunScore
from ptrm_jax.training.log import read_log

PICTURES = {
    "accuracy_against_width": "Accuracy of the choices by width, and of the TRM at equal depth and "
    "compute",
    "accuracy_against_depth": "Accuracy by depth, and by depth and width",
    "q_of_right_and_wrong": "Q of right and of wrong rollouts",
}
"""Pictures of the first sweep that a card shows."""

_HOW_TO_READ = """## Scores

Puzzles solved exactly, in percent, with 95 % intervals over puzzles; noise on z before every step.
Gains are paired by puzzle, over the deterministic TRM at equal depth and at equal compute (one
noise-free rollout of K times as many steps). `pass` needs the labels: an upper bound.
"""


def model_card(
    name: str,
    model: str | os.PathLike[str],
    sweeps: Sequence[Scores],
    *,
    log: str | os.PathLike[str] | None = None,
    command: str = "",
    notes: str = "",
) -> str:
    """The model card of a checkpoint that this package trained, as Markdown.

    Args:
      name: of the checkpoint.
      model: its directory.
      sweeps: scores of sweeps with this checkpoint, one for each data set.
      log: `log.jsonl` of its training run, which states the training time.
      command: the command that trained it.
      notes: further text, Markdown.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      InputError: a sweep is of another checkpoint, or the checkpoint was not trained by ptrm_jax.
    """
    manifest = checkpoint.read_manifest(model)
    if manifest["provenance"].get("trained_by") != "ptrm_jax":
        raise InputError(f"{os.fspath(model)} was not trained by ptrm_jax; write its card by hand")
    for scores in sweeps:
        digest = scores.provenance["checkpoint"]["digest"]
        if digest != manifest["digest"]:
            raise InputError(
                f"sweeps must be of checkpoint {manifest['digest'][:8]}; got one of {digest[:8]}; "
                "run the sweep again"
            )
    parts = [f"# {_escaped(name)}\n", _facts(manifest, log, command)]
    parts += [notes.strip() + "\n"] if notes else []
    parts.append(_HOW_TO_READ)
    parts += [_scores(name, scores) for scores in sweeps]
    parts += [f"![{alt}]({picture}.png)\n" for picture, alt in PICTURES.items() if sweeps]
    return "\n".join(parts)


def _facts(manifest: checkpoint.Manifest, log: str | os.PathLike[str] | None, command: str) -> str:
    cfg, provenance = manifest["config"], manifest["provenance"]
    config, data, platform = provenance["config"], provenance["data"], provenance["platform"]
    parameters = checkpoint.num_parameters(manifest)
    sources = ", ".join(markdown.code(source) for source in config["data"])
    decay = config["min_learning_rate_ratio"]
    rate = f"learning rate {config['learning_rate']:g} after {config['warmup_steps']} steps" + (
        "" if decay == 1 else f", cosine to {decay:g} of it"
    )
    rows = {
        "digest, size": f"`{manifest['digest'][:8]}`, {parameters:,} parameters",
        "architecture": (
            f"`{cfg['variant']}`, positions {cfg['positions']}, h {cfg['hidden_size']}, "
            f"{cfg['num_layers']} layers, cycles {cfg['H_cycles']} x {cfg['L_cycles']}, prefix "
            f"{cfg['prefix_len']}, S {cfg['seq_len']}, V {cfg['vocab_size']}, "
            f"{cfg['forward_dtype']}"
            + (", Q from all positions" if cfg.get("q_pooling") == "attention" else "")
        ),
        "trained on": (
            f"{data['num_examples']:,} puzzles of {sources} (digest `{data['digest'][:8]}`), "
            f"symmetries of {_escaped(config['task'])}"
            + (f", 0 to {config['extra_clues']} extra clues" if config["extra_clues"] else "")
        ),
        "optimiser": (
            f"{config['optimizer']}, {rate}, weight decay {config['weight_decay']:g}, "
            f"{config['loss']}, EMA {config['ema']:g}" + (", warmed up" * config["ema_warmup"])
        ),
        "length": f"{provenance['step']:,} optimiser steps of {config['batch_size']} rows"
        + _hours(log, provenance["step"]),
        "seed": str(config["seed"]),
        "commit": markdown.code(provenance["commit"] or "unknown"),
        "versions": _escaped(", ".join(f"{k} {v}" for k, v in provenance["versions"].items())),
    }
    if start := provenance.get("start"):
        rows["started from"] = ", ".join(
            [
                markdown.code(config["start_from"]),
                f"digest {markdown.code(start['digest'][:8])}",
                *_earlier_runs(start["provenance"]),
            ]
        )
    kind = f"{platform['devices']} x {platform['device_kind']} ({platform['machine']})"
    rows["hardware"] = _escaped(kind)
    text = markdown.table(("", ""), rows.items())
    text += f"\n    {command}\n" if command else ""
    if log is not None:
        text += "\n![Losses, accuracies and evaluations during training](curves.png)\n"
    return text


def _earlier_runs(provenance: dict[str, Any]) -> list[str]:
    """What each of the runs before did, in order, as far as they were this package's."""
    if provenance.get("trained_by") != "ptrm_jax":
        return []
    config, model = provenance["config"], provenance["config"]["model"]
    most = config["halt_max_steps"]
    run = (
        f"{provenance['step']:,} steps (learning rate {config['learning_rate']:g}, at most {most} "
        f"supervision step{'s' * (most > 1)}, cycles {model['H_cycles']} x {model['L_cycles']})"
    )
    before = provenance.get("start")
    return [*(_earlier_runs(before["provenance"]) if before else []), run]


def _escaped(value: object) -> str:
    return markdown.escaped(str(value))


def _hours(log: str | os.PathLike[str] | None, step: int) -> str:
    if log is None:
        return ""
    found = read_log(log)
    if found.damaged:
        raise InputError(
            f"{os.fspath(log)} is damaged in line {found.damaged[0]}; rerun the command that "
            "trained, which drops such lines"
        )
    records = [r for r in found.records if r["kind"] == "train" and r["step"] <= step]
    if not records:
        return ""
    minutes = max(r["seconds"] for r in records) / 60
    time = f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"
    return f", {time} without evaluations"


def _scores(name: str, scores: Scores) -> str:
    config, data = scores.config, scores.provenance["data"]
    file = Path(data["name"]).name
    sigmas = " ".join(f"{sigma:g}" for sigma in config.sigmas)
    lines = [
        f"### {_escaped(file)}\n",
        f"{data['num_puzzles']} of {data['of']} puzzles (digest `{data['digest'][:8]}`), seed "
        + ", ".join(map(str, config.seeds))
        + ":\n",
        f"    python experiments/ptrm_sweep.py --checkpoint {name} --data {file} --sigmas {sigmas} "
        f"--rollouts {config.rollouts} --depth {config.depth} --num-puzzles {data['num_puzzles']}"
        + ("" if config.equal_compute else " --no-equal-compute")
        + "\n",
        _gains(scores),
        f"By width, D={config.depth}:\n\n{_widths(scores)}",
        f"By depth:\n\n{_depths(scores)}",
        f"The Q head after the last step:\n\n{_q_head(scores)}",
    ]
    return "\n".join(lines)


def _gains(scores: Scores) -> str:
    rules = ["rules hold"] if scores.has_rules else []
    rows = [
        [
            _label(line),
            line.accuracy.brief(),
            _cell(line.gain_equal_depth, "+"),
            _cell(line.gain_equal_compute, "+"),
            *(_cell(line.validity) for _ in rules),
        ]
        for line in scores.methods
    ]
    titles = ["", "solved", "gain at equal depth", "gain at equal compute", *rules]
    return markdown.table(titles, rows)


def _label(line: MethodScore) -> str:
    read = ", read at best" if line.read == "best" else ""
    if line.method == "TRM":
        return f"TRM, D={line.depth}{read}"
    if line.choice == "mean":
        return f"PTRM sigma {line.sigma:g}, one rollout (mean){read}"
    if line.rule is not None:
        return f"PTRM sigma {line.sigma:g}, stop at Q >= {line.rule.q_logit:g}"
    return f"PTRM sigma {line.sigma:g}, {CHOICE_NAMES[line.choice]}@{line.rollouts}{read}"


def _cell(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None else interval.brief(sign)


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f}"


def _widths(scores: Scores) -> str:
    """Choices by width at full depth, a row for each sigma and choice."""
    rows = [
        [f"sigma {sigma:g}, {CHOICE_NAMES[choice]}", *map(_percent, accuracies)]
        for sigma, curves in scores.curves.items()
        for choice, accuracies in curves.by_width.items()
    ]
    return markdown.table(["K", *map(str, scores.config.widths)], rows)


def _depths(scores: Scores) -> str:
    """Deterministic TRM and best-Q at full width by depth."""
    depths = powers_of_two(scores.config.baseline_depth)
    rows = [["TRM", *(_percent(scores.trm_by_depth[d - 1]) for d in depths)]]
    for sigma, curves in scores.curves.items():
        by_depth = curves.best_q_by_depth
        cells = [_percent(by_depth[d - 1]) if d <= len(by_depth) else "" for d in depths]
        rows.append([f"best-Q@{scores.config.rollouts}, sigma {sigma:g}", *cells])
    return markdown.table(["D", *map(str, depths)], rows)


def _q_head(scores: Scores) -> str:
    """How well Q separates right from wrong rollouts after the last step."""
    return markdown.table(
        ["sigma", "AUC", "sign right", "mean Q, right", "mean Q, wrong"],
        [_q_row(run) for run in scores.runs if run.method == "PTRM"],
    )


def _q_row(run: RunScore) -> list[str]:
    auc = f"{run.q_auc.mean:.3f} [{run.q_auc.low:.3f}, {run.q_auc.high:.3f}]"
    if not len(run.q_right):
        auc = "none right"
    elif not len(run.q_wrong):
        auc = "none wrong"
    means = [f"{q.mean():+.1f}" if len(q) else "" for q in (run.q_right, run.q_wrong)]
    return [f"{run.sigma:g}", auc, f"{100 * run.q_sign_accuracy:.1f} %", *means]


def write_card(
    directory: str | os.PathLike[str],
    text: str,
    *,
    name: str,
    curves: str | os.PathLike[str],
    sweeps: Sequence[Scores],
) -> None:
    """Writes a card and its pictures into a checkpoint's directory.

    Args:
      directory: of the checkpoint.
      text: of `model_card`.
      name: of the checkpoint, for the pictures' captions.
      curves: picture of its training run.
      sweeps: as for `model_card`; the pictures are of the first.
    """
    files = {"curves.png": Path(curves).read_bytes()}
    for scores in sweeps[:1]:
        model, data = scores.provenance["checkpoint"], scores.provenance["data"]
        named = {
            "checkpoint": model | {"name": name},
            "data": data | {"name": Path(data["name"]).name},
        }
        portable = scores._replace(provenance=scores.provenance | named)
        for picture in PICTURES:
            figure = pictures.PICTURES[picture](portable)
            files[f"{picture}.png"] = charts.png(figure, dpi=100)
    folder = epath.Path(directory)
    write_text(folder / "README.md", text)
    for file, data in files.items():
        write_bytes(folder / file, data)
