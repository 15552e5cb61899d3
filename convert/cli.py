"""The command `python -m convert`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from convert.conversion import convert, describe_worst
from convert.mapping import ConversionError
from ptrm_jax import checkpoint
from ptrm_jax.config import DType, Positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """Architecture that the files leave open; what they do say must agree."""

    H_cycles: Annotated[int | None, arg(name="h-cycles", metavar="INT")] = None
    """T, latent recursions in a deep recursion."""
    L_cycles: Annotated[int | None, arg(name="l-cycles", metavar="INT")] = None
    """n, updates of z in a latent recursion."""
    num_heads: Annotated[int | None, arg(metavar="INT")] = None
    """Attention heads."""
    positions: Annotated[Positions | None, arg(metavar="rope|learned|none")] = None
    """Position encoding (upstream pos_encodings)."""
    seq_len: Annotated[int | None, arg(metavar="INT")] = None
    """S, tokens of a puzzle."""
    prefix_len: Annotated[int | None, arg(metavar="INT")] = None
    """P, positions that hold the puzzle embedding (upstream puzzle_emb_len, unless 0)."""
    forward_dtype: Annotated[DType | None, arg(metavar="float32|bfloat16")] = None
    """Dtype of activations in training."""
    rms_norm_eps: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Upstream's default is 1e-5."""
    rope_theta: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Upstream's default is 10000."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Converts an upstream (PyTorch) TRM checkpoint, compares both models, writes ours."""

    checkpoint: Annotated[tyro.conf.Positional[str], arg(metavar="CHECKPOINT")]
    """Run folder, step_<n>, .pt, .pth, .safetensors, or hf://owner/name[@revision][/file]."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Directory to write."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """all_config.yaml, where it is not beside the checkpoint."""
    dataset: Annotated[Path | None, arg(metavar="FILE")] = None
    """dataset.json, where it is not beside the checkpoint or in data/ below."""
    entry: Annotated[str | None, arg(metavar="NAME")] = None
    """Which state of a file that holds several, e.g. ema."""
    parity: Annotated[str, arg(metavar="torch|none|FILE")] = "auto"
    """What to compare with; FILE is an .npz of reference vectors; auto is torch where installed."""
    allow_parity_failure: bool = False
    """Write even if the comparison fails."""
    overwrite: bool = False
    """Replace an existing checkpoint."""
    fields: tyro.conf.OmitArgPrefixes[Fields] = Fields()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, 2 for a conversion that was refused."""
    args = tyro.cli(
        Arguments, prog="python -m convert", args=argv, config=(tyro.conf.FlagCreatePairsOff,)
    )
    try:
        out = convert(
            args.checkpoint,
            args.out,
            config=args.config,
            dataset=args.dataset,
            entry=args.entry,
            parity=args.parity,
            allow_parity_failure=args.allow_parity_failure,
            overwrite=args.overwrite,
            **dataclasses.asdict(args.fields),
        )
        print(summary(out))
    except (ConversionError, checkpoint.CheckpointError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def summary(directory: Path) -> str:
    """What a converted checkpoint is, in a few lines, from what is on disk."""
    manifest = checkpoint.read_manifest(directory)
    config, source = manifest["config"], manifest["provenance"]
    record = json.loads((directory / "parity.json").read_text())
    values = 0
    for leaf in manifest["leaves"].values():
        size = 1
        for dim in leaf["shape"]:
            size *= dim
        values += size
    heads = f", {config['num_heads']} heads" if config["variant"] == "attention" else ""
    verdict = {True: "passed", False: "FAILED", None: "not compared"}[record["passed"]]
    lines = [
        ("read", f"{source['source']} ({source['kind']}), sha256 {source['source_sha256']}"),
        ("weights", f"{values:,} values in {len(manifest['leaves'])} tensors; {source['ema']}"),
        (
            "model",
            f"{config['variant']}, positions {config['positions']}, {config['num_layers']} layers, "
            f"h {config['hidden_size']}{heads}, cycles {config['H_cycles']} x "
            f"{config['L_cycles']}, S {config['seq_len']}, P {config['prefix_len']}, "
            f"V {config['vocab_size']}, {config['forward_dtype']}",
        ),
        *(
            ("parity", f"{check['against']}, {check['compute_dtype']}: {describe_worst(check)}")
            for check in record["checks"]
        ),
        ("parity", verdict),
        ("digest", manifest["digest"]),
        ("wrote", str(directory)),
    ]
    return "\n".join(f"{name:8} {text}" for name, text in lines)
