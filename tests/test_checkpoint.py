"""Checkpoints: loading returns the saved bits, and refuses whatever is damaged."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptrm_jax import TRM, CheckpointError, ModelConfig, Precision, checkpoint, load, save
from ptrm_jax.checkpoint import read_manifest, tree_digest
from ptrm_jax.errors import StorageError
from ptrm_jax.files import json_digest
from ptrm_jax.model import param_shapes

CONFIG = ModelConfig(
    vocab_size=7,
    seq_len=16,
    hidden_size=32,
    num_layers=1,
    H_cycles=2,
    L_cycles=3,
    mlp_width=24,
    variant="mlp_t",
    mlp_t_width=20,
    prefix_len=1,
    puzzle_emb_ndim=20,
    num_puzzle_identifiers=3,
)
LEAVES = (
    "H_init",
    "L_init",
    "embed_tokens/embedding",
    "lm_head/kernel",
    "network/layers_0/mlp/down_proj/kernel",
    "network/layers_0/mlp/gate_up_proj/kernel",
    "network/layers_0/mlp_t/down_proj/kernel",
    "network/layers_0/mlp_t/gate_up_proj/kernel",
    "puzzle_emb/embedding",
    "q_head/bias",
    "q_head/kernel",
)
LONGEST_MESSAGE = 1000


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def flat_params(seed: int = 0, config: ModelConfig = CONFIG) -> dict[str, np.ndarray]:
    """Random parameters by path, no leaf constant."""
    rng = np.random.default_rng(seed)
    shapes = param_shapes(TRM(config))
    return {name: rng.standard_normal(shapes[name].shape, np.float32) for name in sorted(shapes)}


def bits(params: Any) -> list[tuple[Any, str, bytes]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(path, str(leaf.dtype), np.asarray(leaf).tobytes()) for path, leaf in leaves]


def resign(directory: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edits the manifest and signs the result, as a faulty writer would."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["manifest_digest"]
    edit(manifest)
    manifest["manifest_digest"] = json_digest(manifest)
    path.write_text(json.dumps(manifest))


def sign_files(directory: Path) -> None:
    digests = checkpoint._digest_files(checkpoint.epath.Path(directory / "params"))
    resign(directory, lambda manifest: manifest.update(files=digests))


def refusal(call: Callable[..., Any], *args: Any, says: tuple[str, ...] = (), **kwargs: Any) -> str:
    """The message of the CheckpointError that `call` raises: one short line with all of `says`."""
    with pytest.raises(CheckpointError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert len(message) < LONGEST_MESSAGE
    assert "\n" not in message
    assert [words for words in says if words not in message] == []
    return message


def everything_below(directory: Path) -> dict[str, bytes | None]:
    """Files with their bytes, folders with None."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that no test changes."""
    return save(
        tmp_path_factory.mktemp("original") / "model",
        CONFIG,
        nested(flat_params()),
        provenance={"source": "random", "seed": 0},
        parity={"max_error": 0.0},
        card="# A model\n",
    )


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


# --- Round trip ----------------------------------------------------------------------------------


def test_load_returns_the_saved_bits_and_model(original: Path) -> None:
    model, params = load(original)
    assert bits(params) == bits(nested(flat_params()))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert model == TRM(CONFIG, Precision(compute_dtype="bfloat16"))
    assert hash(model) == hash(TRM(CONFIG, Precision(compute_dtype="bfloat16")))


def test_bits_that_compare_equal_survive(tmp_path: Path) -> None:
    """Signed zeros, subnormal numbers, a leaf of zeros only."""
    leaves = flat_params()
    leaves["q_head/kernel"] = np.zeros((32, 2), np.float32)
    leaves["H_init"] = -np.zeros(32, np.float32)
    leaves["L_init"][:2] = np.array([0x80000000, 0x00000001], np.uint32).view(np.float32)
    _, params = load(save(tmp_path / "model", CONFIG, nested(leaves)))
    assert bits(params) == bits(nested(leaves))


def test_an_attention_model_of_jax_arrays_makes_the_round_trip(tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=5,
        seq_len=16,
        hidden_size=32,
        num_layers=1,
        H_cycles=1,
        L_cycles=1,
        mlp_width=16,
        variant="attention",
        num_heads=2,
        positions="learned",
        forward_dtype="float32",
    )
    params = jax.tree.map(jnp.asarray, nested(flat_params(config=config)))
    model, loaded = load(save(tmp_path / "model", config, params))
    assert model == TRM(config, Precision())
    assert bits(loaded) == bits(params)


def test_precision_defaults_to_the_trained_dtype_and_can_be_chosen(original: Path) -> None:
    assert load(original)[0].precision == Precision("bfloat16", "highest")
    chosen = Precision("float32", "default", q_dtype="bfloat16")
    assert load(original, precision=chosen)[0] == TRM(CONFIG, chosen)


def test_a_relative_directory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert save("model", CONFIG, nested(flat_params())) == Path("model")
    assert bits(load("model")[1]) == bits(nested(flat_params()))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_save_writes_what_it_was_told_beside_the_parameters(original: Path) -> None:
    manifest = read_manifest(original)
    assert manifest["provenance"] == {"source": "random", "seed": 0}
    assert manifest["config"] == CONFIG.to_dict()
    assert tuple(manifest["leaves"]) == LEAVES
    assert manifest["leaves"]["q_head/bias"]["shape"] == [2]
    stored = everything_below(original / "params")
    assert sorted(manifest["files"]) == sorted(name for name in stored if stored[name] is not None)
    assert json.loads((original / "parity.json").read_text()) == {"max_error": 0.0}
    assert (original / "README.md").read_text() == "# A model\n"
    assert sorted(path.name for path in original.iterdir()) == [
        *("README.md", "manifest.json", "params", "parity.json")
    ]


def test_whatever_save_accepts_as_provenance_can_be_loaded(tmp_path: Path) -> None:
    odd = {"note": "σ = 0.1", "error": 1e-7, "rows": (1, 2), "none": None, "nan": float("nan")}
    provenance = {**odd, "keys": {1: "a", 2: "b", 10: "c"}}
    load(save(tmp_path / "model", CONFIG, nested(flat_params()), provenance=provenance))


# --- Identity ------------------------------------------------------------------------------------


def test_tree_digest_is_the_manifests_and_does_not_depend_on_storage(original: Path) -> None:
    leaves = flat_params()
    digest = tree_digest(CONFIG, nested(leaves))
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert read_manifest(original)["digest"] == digest
    model, params = load(original)
    assert tree_digest(model.config, params) == digest
    reordered = {name: leaves[name] for name in reversed(LEAVES)}
    fortran = {name: np.asfortranarray(leaf) for name, leaf in leaves.items()}
    strided = {name: np.repeat(leaf, 2, axis=-1)[..., ::2] for name, leaf in leaves.items()}
    for same in (reordered, fortran, strided):
        assert tree_digest(CONFIG, nested(same)) == digest


def test_tree_digest_depends_on_every_leaf() -> None:
    digests = {tree_digest(CONFIG, nested(flat_params()))}
    for name in LEAVES:
        leaves = flat_params()
        leaves[name].flat[-1] = np.nextafter(leaves[name].flat[-1], np.float32(9))
        digests.add(tree_digest(CONFIG, nested(leaves)))
        leaves = flat_params()
        leaves[name] = leaves[name][..., ::-1]
        digests.add(tree_digest(CONFIG, nested(leaves)))
    assert len(digests) == 1 + 2 * len(LEAVES)


def test_tree_digest_depends_on_every_field_of_the_architecture() -> None:
    fields = CONFIG.to_dict()
    changed = {
        **{name: value + 1 for name, value in fields.items() if isinstance(value, int)},
        "positions": "learned",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10001.0,
        "forward_dtype": "float32",
    }
    params = nested(flat_params())
    digests = {
        tree_digest(ModelConfig.from_dict(fields | {name: value}), params)
        for name, value in changed.items()
    }
    attention = fields | {"variant": "attention", "mlp_t_width": 0}
    digests.add(tree_digest(ModelConfig.from_dict(attention), params))
    digests.add(tree_digest(CONFIG, params))
    assert len(digests) == len(fields) + 1  # variant, every other field, and none


# --- Damage --------------------------------------------------------------------------------------


def flipped(intact: bytes) -> Iterator[bytes]:
    last = len(intact) - 1
    for number, position in enumerate(sorted({0, last // 3, last // 2, last})):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << (number * 3 % 8)
        yield bytes(damaged)


def truncated(intact: bytes) -> Iterator[bytes]:
    yield from (b"", intact[: len(intact) // 2])


def deleted(intact: bytes) -> Iterator[None]:
    yield None


@pytest.mark.parametrize("damage", [flipped, truncated, deleted])
def test_damage_to_any_file_is_refused(
    copy: Path, damage: Callable[[bytes], Iterator[bytes | None]]
) -> None:
    stored = everything_below(copy)
    files = [name for name in stored if stored[name] and name.startswith(("params/", "manifest"))]
    assert len(files) > 2 * len(LEAVES)
    for name in files:
        intact = (copy / name).read_bytes()
        for damaged in damage(intact):
            (copy / name).unlink()
            if damaged is not None:
                (copy / name).write_bytes(damaged)
            refusal(load, copy, says=(name.removeprefix("params/"),))
            (copy / name).write_bytes(intact)
    load(copy)  # the damage was the cause


def test_no_flipped_bit_changes_what_the_manifest_says(copy: Path) -> None:
    path = copy / "manifest.json"
    stated, intact = read_manifest(copy), path.read_bytes()
    accepted = 0
    for position in range(0, len(intact), 7):  # every bit of a byte in turn
        damaged = bytearray(intact)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            assert read_manifest(copy) == stated
            accepted += 1
        except CheckpointError:
            pass
    assert accepted <= 1  # "1E-05" is the number "1e-05"


def test_deleted_parameters_are_refused(copy: Path) -> None:
    shutil.rmtree(copy / "params")
    refusal(load, copy, says=("params is missing",))


@pytest.mark.parametrize("name", ["extra", "H_init/c/1", "new.leaf/zarr.json", ".hidden"])
def test_an_extra_file_is_refused(copy: Path, name: str) -> None:
    extra = copy / "params" / name
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_bytes(b"")
    refusal(load, copy, says=(f"unexpected {name}",))


def test_files_of_two_leaves_cannot_change_places(copy: Path) -> None:
    first, second = (copy / "params" / name / "c" / "0" for name in ("H_init", "L_init"))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    refusal(load, copy, says=("H_init/c/0 is damaged", "L_init/c/0 is damaged"))


@pytest.mark.parametrize("name", LEAVES)
def test_weights_that_read_back_differently_are_not_saved(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leaves = flat_params()
    leaves[name].flat[0] = np.nextafter(leaves[name].flat[0], np.float32(9))
    monkeypatch.setattr(checkpoint, "_write_params", lambda path, params: path.mkdir())
    monkeypatch.setattr(checkpoint, "_restore", lambda path: nested(leaves))
    refusal(save, tmp_path / "model", CONFIG, nested(flat_params()), says=("read back",))
    assert everything_below(tmp_path) == {}


def test_parameters_that_orbax_cannot_read_are_refused_in_one_line(copy: Path) -> None:
    (copy / "params" / "_METADATA").write_bytes(b"{}")
    sign_files(copy)
    refusal(load, copy, says=("params",))


@pytest.mark.parametrize(
    ("name", "leaf", "says"),
    [
        ("H_init", np.zeros(32, np.float16), "H_init is float16[32], expected float32[32]"),
        ("H_init", np.zeros(32, jnp.bfloat16), "H_init is bfloat16[32], expected float32[32]"),
        ("H_init", np.zeros(32, np.int32), "H_init is int32[32], expected float32[32]"),
        ("H_init", np.zeros(31, np.float32), "H_init is float32[31], expected float32[32]"),
        ("H_init", np.zeros((1, 32), np.float32), "H_init is float32[1, 32], expected float32[32]"),
        ("H_init", None, "missing H_init"),
        ("network/layers_1/bias", np.zeros(2, np.float32), "unexpected network/layers_1/bias"),
    ],
    ids=["float16", "bfloat16", "int32", "short", "rank", "missing", "unexpected"],
)
def test_a_consistent_checkpoint_that_does_not_fit_the_model_is_refused(
    name: str,
    leaf: np.ndarray | None,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    leaves = {**flat_params(), name: leaf}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_check_leaves", lambda *args: None)
        save(tmp_path / "model", CONFIG, nested(leaves))
    refusal(load, tmp_path / "model", says=(says,))


# --- The manifest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.update(format=2), ("manifest.json", "format 2", "format 1", "convert")),
        (lambda m: m["config"].update(dropout=0.1), ("manifest.json", "fields ['dropout']")),
        (lambda m: m["config"].pop("seq_len"), ("manifest.json", "missing fields ['seq_len']")),
        (lambda m: m["config"].update(variant="conv"), ("manifest.json", "variant", "'conv'")),
        (
            lambda m: m["config"].update(vocab_size=8),
            ("float32[7, 32], expected float32[8, 32]", "lm_head/kernel"),
        ),
        (lambda m: m.update(digest="0" * 64), ("digest",)),
        (lambda m: m["leaves"]["H_init"].update(sha256="0" * 64), ("digest",)),
        (lambda m: m["leaves"]["H_init"].update(shape=[1, 32]), ("H_init is float32[1, 32]",)),
        (lambda m: m["leaves"].pop("H_init"), ("missing H_init",)),
        (lambda m: m["leaves"]["H_init"].pop("dtype"), ("manifest.json", "`dtype`", "$.leaves")),
        (lambda m: m["leaves"]["H_init"].update(shape="32"), ("array", "$.leaves[...].shape")),
        (lambda m: m["files"].update(extra=3), ("manifest.json", "str", "$.files")),
        (lambda m: m.update(provenance=[]), ("manifest.json", "object", "$.provenance")),
        (lambda m: m.pop("config"), ("manifest.json", "config")),
        (lambda m: m.pop("files"), ("manifest.json", "files")),
        (lambda m: m.pop("leaves"), ("manifest.json", "leaves")),
    ],
)
def test_a_manifest_that_is_wrong_though_signed_is_refused(
    copy: Path, edit: Callable[[dict[str, Any]], Any], says: tuple[str, ...]
) -> None:
    resign(copy, edit)
    refusal(load, copy, says=says)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", "null", "3", '"text"', '{"format": 1}', '{"manifest_digest": "00"}'],
)
def test_a_file_that_is_not_a_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    refusal(load, copy, says=("manifest.json", "convert"))


# --- Names ---------------------------------------------------------------------------------------


def test_bundled_names_load_and_an_unknown_name_lists_them(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        shutil.copytree(original, tmp_path / name)
    (tmp_path / "puzzles").mkdir()  # an asset that is no checkpoint
    monkeypatch.setattr(checkpoint, "_ASSETS", checkpoint.epath.Path(tmp_path))
    assert checkpoint.bundled() == ("first", "second")
    assert bits(load("second")[1]) == bits(nested(flat_params()))
    for unknown in ("third", "puzzles", str(tmp_path / "nowhere")):
        refusal(load, unknown, says=(repr(unknown), "first, second", "python -m convert"))


def test_a_directory_without_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    refusal(load, tmp_path, says=(str(tmp_path), "manifest.json"))


# --- Saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "bfloat16", ">f4"])
def test_parameters_of_another_dtype_are_refused(dtype: str, tmp_path: Path) -> None:
    leaves = flat_params()
    leaves["q_head/bias"] = leaves["q_head/bias"].astype(jnp.dtype(dtype))
    target = tmp_path / "model"
    refusal(save, target, CONFIG, nested(leaves), says=(f"q_head/bias is {dtype}[2]", "float32[2]"))
    assert everything_below(tmp_path) == {}


def test_every_leaf_that_does_not_fit_is_named_in_one_message(tmp_path: Path) -> None:
    leaves = flat_params()
    del leaves["lm_head/kernel"], leaves["H_init"]
    leaves["extra"] = np.zeros(2, np.float32)
    leaves["network/layers_1/mlp/down_proj/kernel"] = np.zeros((24, 32), np.float32)
    leaves["L_init"] = np.zeros(31, np.float32)
    leaves["q_head/kernel"] = leaves["q_head/kernel"].T
    leaves["q_head/bias"] = np.zeros(2, np.float16)
    message = refusal(save, tmp_path / "model", CONFIG, nested(leaves))
    problems = message.split("do not fit the model: ")[1].split("; ")
    assert sorted(problems) == [
        "L_init is float32[31], expected float32[32]",
        "missing H_init",
        "missing lm_head/kernel",
        "q_head/bias is float16[2], expected float32[2]",
        "q_head/kernel is float32[2, 32], expected float32[32, 2]",
        "unexpected extra",
        "unexpected network/layers_1/mlp/down_proj/kernel",
    ]
    assert everything_below(tmp_path) == {}


def test_an_existing_checkpoint_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    save(target, CONFIG, nested(flat_params(0)), parity={"max_error": 0.0}, card="old")
    before = everything_below(tmp_path)
    refusal(save, target, CONFIG, nested(flat_params(1)), says=(str(target), "overwrite"))
    assert everything_below(tmp_path) == before
    save(target, CONFIG, nested(flat_params(1)), overwrite=True)
    assert bits(load(target)[1]) == bits(nested(flat_params(1)))
    # Nothing of the old one stays behind, and no temporary folder.
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "params"]


def test_overwrite_needs_nothing_to_overwrite(tmp_path: Path) -> None:
    load(save(tmp_path / "model", CONFIG, nested(flat_params()), overwrite=True))


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_checkpoint_is_never_overwritten(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("data")
    before = everything_below(tmp_path)
    for name in ("file", "empty", "folder"):
        args = tmp_path / name, CONFIG, nested(flat_params())
        refusal(save, *args, overwrite=overwrite, says=(str(tmp_path / name),))
    assert everything_below(tmp_path) == before


class DiskFull(OSError):
    pass


def break_save(monkeypatch: pytest.MonkeyPatch, where: str) -> type[BaseException]:
    """Makes `save` fail at one of its steps; returns what it then raises."""
    write_params, write_json, rename = (
        checkpoint._write_params,
        checkpoint._write_json,
        Path.rename,
    )

    def fail_after(write: Callable[..., Any], when: Callable[[Path], bool]) -> Callable[..., Any]:
        def failing(path: Path, value: Any) -> Any:
            if not when(path):
                return write(path, value)
            if where != "rename":
                write(path, value)
            raise KeyboardInterrupt if where == "interrupt" else DiskFull

        return failing

    always = lambda path: True  # noqa: E731
    if where in ("params", "interrupt"):
        monkeypatch.setattr(checkpoint, "_write_params", fail_after(write_params, always))
    elif where == "rename":  # the last step, when the new checkpoint takes its name
        when = lambda path: path.name.endswith(".partial")  # noqa: E731
        monkeypatch.setattr(Path, "rename", fail_after(rename, when))
    else:
        when = lambda path: path.name == where  # noqa: E731
        monkeypatch.setattr(checkpoint, "_write_json", fail_after(write_json, when))
    return KeyboardInterrupt if where == "interrupt" else StorageError


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("where", ["params", "interrupt", "manifest.json", "parity.json", "rename"])
def test_a_failed_save_changes_nothing(
    where: str, overwrite: bool, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_below(copy.parent)
    target = copy if overwrite else copy.with_name("model")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_exchange", lambda *_: False)  # as where the system cannot
        error = break_save(patch, where)
        with pytest.raises(error, match=r"^$|nothing was changed"):
            save(target, CONFIG, nested(flat_params(1)), parity={"max": 0.0}, overwrite=overwrite)
    assert everything_below(copy.parent) == before


def test_a_name_is_not_lost_between_two_renames(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where folders cannot be exchanged; the process was killed between the renames."""
    monkeypatch.setattr(checkpoint, "_exchange", lambda *_: False)
    copy.rename(copy.with_name(".copy.replaced"))
    assert bits(load(copy)[1]) == bits(nested(flat_params()))
    save(copy, CONFIG, nested(flat_params(1)), overwrite=True)
    assert bits(load(copy)[1]) == bits(nested(flat_params(1)))
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_folders_change_places_at_once(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / name).mkdir(parents=True)
    if checkpoint._exchange(tmp_path / "first", tmp_path / "second"):
        assert (tmp_path / "first" / "second").exists() and (tmp_path / "second" / "first").exists()
    assert not checkpoint._exchange(tmp_path / "first", tmp_path / "third")


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """But not what a living one is writing, or what is the user's."""
    for name in (".model.dead.partial", ".model.alive.partial", ".model.previous", ".models.x"):
        (tmp_path / name).mkdir()
    with checkpoint._locked(tmp_path / ".model.alive.partial"):
        save(tmp_path / "model", CONFIG, nested(flat_params()))
    left = [".model.alive.partial", ".model.previous", ".models.x", "model"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = flat_params()
    leaves["lm_head/kernel"].flat[-1] = value
    says = ("weights must be finite; not so lm_head/kernel",)
    refusal(save, tmp_path / "model", CONFIG, nested(leaves), says=says)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_check_finite", lambda *_: None)
        save(tmp_path / "model", CONFIG, nested(leaves))
    refusal(load, tmp_path / "model", says=says)


def hostile(copy: Path, kind: str) -> None:
    """Makes a checkpoint state, or be, what would take forever or all memory; signs it."""
    chunk, folder = copy / "params" / "H_init" / "c" / "0", copy / "params" / "H_init"
    metadata = json.loads((folder / "zarr.json").read_text())
    shard = metadata["codecs"][0]["configuration"]
    match kind:
        case "shape":
            metadata["shape"] = [10**12]
        case "chunk":
            metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**12]
        case "shard":
            shard["chunk_shape"] = [10**12]
        case "nested":
            shard["codecs"] = [deepcopy(metadata["codecs"][0])] * 2
        case "list":
            metadata = []
        case "array":
            (copy / "params" / "more").mkdir()
            (copy / "params" / "more" / "zarr.json").write_text(json.dumps(metadata))
        case "pipe" | "device" | "loop":
            chunk.unlink()
            if kind == "pipe":
                os.mkfifo(chunk)
            else:
                chunk.symlink_to("/dev/zero" if kind == "device" else folder)
            return
        case "sparse":
            with chunk.open("ab") as file:
                file.truncate(2**40)
            return
        case "layers":
            return resign(copy, lambda m: m["config"].update(num_layers=10**9))
        case "cycles":
            return resign(copy, lambda m: m["config"].update(L_cycles=10**9))
        case "large":  # as large as it says, but for what is stored
            shape = [2**20, 2**20]
            resign(copy, lambda m: m["leaves"]["H_init"].update(shape=shape))
    (folder / "zarr.json").write_text(json.dumps(metadata))
    sign_files(copy)


HOSTILE = "shape chunk shard nested list array pipe device loop sparse layers cycles large".split()


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_would_take_all_memory_is_refused_before_it_is_read(
    kind: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_restore", lambda path: pytest.fail("it was read"))
    hostile(copy, kind)
    refusal(load, copy)


def test_values_that_json_cannot_hold_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save(tmp_path / "model", CONFIG, nested(flat_params()), provenance={"path": tmp_path})
    assert everything_below(tmp_path) == {}
