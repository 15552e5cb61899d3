"""Checkpoints on disk: weights by Orbax, and a manifest that vouches for every byte of them.

    DIR/params/         the parameters, an Orbax PyTree checkpoint
    DIR/manifest.json   architecture, digest of every leaf and file, tree digest, provenance
    DIR/parity.json     how conversion was checked, if it was
    DIR/README.md       model card, if there is one

Orbax and safetensors load a flipped bit without complaint. So every file's SHA-256 is compared
before it is read, every leaf's after, and the digest over the leaves and the architecture is the
checkpoint's identity: it is what results record.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ptrm_jax.config import ModelConfig, Precision
from ptrm_jax.errors import CheckpointError
from ptrm_jax.model import TRM, Params, param_shapes, path_name
from ptrm_jax.version import __version__

FORMAT = 1
_ASSETS = epath.Path(__file__).parent / "assets"


def bundled() -> tuple[str, ...]:
    """Names of the checkpoints that come with the package."""
    return tuple(sorted(p.parent.name for p in _ASSETS.glob("*/manifest.json")))


def resolve(name_or_directory: str | os.PathLike[str]) -> epath.Path:
    """Directory of a bundled checkpoint's name, or of a path.

    Raises:
      CheckpointError: it is neither.
    """
    name = os.fspath(name_or_directory)
    directory = _ASSETS / name if name in bundled() else epath.Path(name)
    if not (directory / "manifest.json").exists():
        raise CheckpointError(
            f"no checkpoint at {name!r}: it must be a bundled name ({', '.join(bundled())}) or a "
            "directory with a manifest.json, as `python -m convert` writes"
        )
    return directory


def load(
    name_or_directory: str | os.PathLike[str], *, precision: Precision | None = None
) -> tuple[TRM, Params]:
    """The model and its verified parameters.

    Args:
      name_or_directory: a bundled name ("sudoku6", "sudoku9") or a directory that `save` wrote.
      precision: how to compute; by default in the dtype the checkpoint was trained with, matmuls
        at "highest".

    Returns:
      model, and params: a nested dict of float32 arrays.

    Raises:
      CheckpointError: not found, damaged, incomplete, or not what its manifest says.
    """
    directory = resolve(name_or_directory)
    manifest = read_manifest(directory)
    try:
        config = ModelConfig.from_dict(manifest["config"])
    except ValueError as error:
        raise CheckpointError(f"{directory}/manifest.json: {error}") from error
    model = TRM(config, precision or Precision(compute_dtype=config.forward_dtype))
    _verify_files(directory, manifest["files"])
    params = _restore(directory / "params")
    _verify_leaves(directory, model, params, manifest)
    return model, jax.tree.map(jnp.asarray, params)


def read_manifest(name_or_directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a checkpoint, its own digest verified.

    Raises:
      CheckpointError: not found, not readable, damaged, or of another format.
    """
    path = resolve(name_or_directory) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stated = manifest.pop("manifest_digest")
        version = manifest["format"]
        if version == FORMAT:
            _ = [manifest[name] for name in ("config", "digest", "leaves", "files", "provenance")]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint manifest ({type(error).__name__}: {error}); convert the "
            "checkpoint again"
        ) from error
    if stated != _digest_json(manifest):
        raise CheckpointError(
            f"{path} is damaged: its digest does not match; convert the checkpoint again"
        )
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has format {version}; this version of ptrm_jax reads format {FORMAT}; convert "
            "the checkpoint again"
        )
    return manifest


def num_parameters(manifest: Mapping[str, Any]) -> int:
    """Number of parameters of the checkpoint that a manifest describes."""
    return sum(math.prod(leaf["shape"]) for leaf in manifest["leaves"].values())


def save(
    directory: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    *,
    provenance: Mapping[str, Any] | None = None,
    parity: Mapping[str, Any] | None = None,
    card: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a checkpoint; it appears under its name whole or not at all.

    Args:
      directory: where; must not exist unless `overwrite`.
      config: the architecture.
      params: nested dict of float32 arrays with the shapes of `config`.
      provenance: where the weights come from; JSON.
      parity: how they were checked against their source; JSON.
      card: text of README.md, the model card.
      overwrite: replace an existing checkpoint.

    Returns:
      The directory.

    Raises:
      CheckpointError: it exists, or params do not fit config.
    """
    directory = Path(directory)
    if directory.exists() and not overwrite:
        raise CheckpointError(f"{directory} exists; choose another directory or pass overwrite")
    if directory.exists() and not (directory / "manifest.json").exists():
        raise CheckpointError(f"{directory} is not a checkpoint; it will not be overwritten")
    params = jax.tree.map(np.asarray, params)
    leaves = _describe_leaves(params)
    _check_leaves(str(directory), TRM(config), leaves)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _write_params(temporary / "params", params)
        manifest = {
            "format": FORMAT,
            "ptrm_jax": __version__,
            "config": config.to_dict(),
            "digest": _tree_digest(config, leaves),
            "leaves": leaves,
            "files": _digest_files(epath.Path(temporary / "params")),
            "provenance": dict(provenance or {}),
        }
        # As it will be read: JSON turns every key into a string, which may change their order.
        manifest = json.loads(json.dumps(manifest))
        manifest["manifest_digest"] = _digest_json(manifest)
        _write_json(temporary / "manifest.json", manifest)
        if parity is not None:
            _write_json(temporary / "parity.json", parity)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp's folder is its owner's alone
        if directory.exists():
            _replace(directory, temporary)
        else:
            temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory


def _replace(directory: Path, by: Path) -> None:
    """Puts `by` in the place of `directory`, which goes last and comes back if that fails."""
    old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    directory.rename(old / "replaced")
    try:
        by.rename(directory)
    except BaseException:
        (old / "replaced").rename(directory)
        old.rmdir()
        raise
    shutil.rmtree(old)


def tree_digest(config: ModelConfig, params: Params) -> str:
    """SHA-256 over the architecture and every leaf: the identity of a checkpoint, 64 hex digits.

    Independent of how the weights are stored. `load(...)` has verified it against the manifest.
    """
    return _tree_digest(config, _describe_leaves(jax.tree.map(np.asarray, params)))


def _tree_digest(config: ModelConfig, leaves: Mapping[str, Any]) -> str:
    return _digest_json({"config": config.to_dict(), "leaves": leaves})


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _describe_leaves(params: Params) -> dict[str, dict[str, Any]]:
    return {
        path_name(path): {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest(),
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _check_leaves(where: str, model: TRM, leaves: Mapping[str, Mapping[str, Any]]) -> None:
    """Names, shapes and dtypes of leaves against the architecture, all differences at once."""
    expected = param_shapes(model)
    problems = [f"missing {name}" for name in sorted(expected.keys() - leaves.keys())]
    problems += [f"unexpected {name}" for name in sorted(leaves.keys() - expected.keys())]
    for name in sorted(expected.keys() & leaves.keys()):
        got, want = leaves[name], expected[name]
        if tuple(got["shape"]) != want.shape or got["dtype"] != str(want.dtype):
            problems.append(
                f"{name} is {got['dtype']}{got['shape']}, expected {want.dtype}{list(want.shape)}"
            )
    if problems:
        raise CheckpointError(f"{where}: weights do not fit the model: " + "; ".join(problems))


def _verify_leaves(
    directory: epath.Path, model: TRM, params: Params, manifest: Mapping[str, Any]
) -> None:
    leaves = _describe_leaves(params)
    _check_leaves(str(directory), model, leaves)
    changed = sorted(name for name in leaves if leaves[name] != manifest["leaves"].get(name))
    if changed:
        raise CheckpointError(
            f"{directory} is damaged: {', '.join(changed)} differ from the manifest's digest; "
            "convert or download the checkpoint again"
        )
    if manifest["digest"] != _tree_digest(model.config, leaves):
        raise CheckpointError(
            f"{directory} states another digest than its weights and architecture have; convert "
            "or download the checkpoint again"
        )


def _digest_files(directory: epath.Path) -> dict[str, str]:
    digests = {}
    for path in sorted(directory.iterdir()) if directory.exists() else ():
        if path.is_dir():
            digests |= {f"{path.name}/{name}": d for name, d in _digest_files(path).items()}
        else:
            digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _verify_files(directory: epath.Path, stated: Mapping[str, str]) -> None:
    found = _digest_files(directory / "params")
    if not found:
        raise CheckpointError(
            f"{directory}/params is missing; convert or download the checkpoint again"
        )
    problems = [f"{name} is missing" for name in sorted(stated.keys() - found.keys())]
    problems += [
        f"{name} is damaged"
        for name in sorted(stated.keys() & found.keys())
        if stated[name] != found[name]
    ]
    problems += [f"{name} does not belong" for name in sorted(found.keys() - stated.keys())]
    if problems:
        raise CheckpointError(
            f"{directory}/params is not what its manifest says: {'; '.join(problems)}; convert or "
            "download the checkpoint again"
        )


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp  # 0.8 s to import: only where it is used

    # One file a leaf, none of them hidden, so that packaging takes all of them.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True))


def _write_params(path: Path, params: Params) -> None:
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # Orbax warns of OCDBT files that this layout does not have
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), params)
    finally:
        log.setLevel(level)
    # Orbax says in it where on this machine it wrote.
    (path / "commit_success.txt").write_text("whole\n", encoding="utf-8")


def _restore(path: epath.Path) -> Params:
    try:
        with _checkpointer() as checkpointer:
            restored = checkpointer.restore(path if "://" in str(path) else path.resolve())
    # Orbax raises a bare Exception with pages of text.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason[:200]}") from error
    return jax.tree.map(np.asarray, restored)
