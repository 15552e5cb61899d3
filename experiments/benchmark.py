"""Measures speed and memory of `solve` and speed of training, as ratios within one run.

    python experiments/benchmark.py speed     # needs torch: pip install -e ".[convert]"
    python experiments/benchmark.py training  # also a C++ compiler, for torch.compile
    python experiments/benchmark.py layouts
    python experiments/benchmark.py memory
    python experiments/benchmark.py rules
    python experiments/benchmark.py anytime
    python experiments/benchmark.py targets   # needs libtpu: pip install -e ".[tpu]"; no TPU

`speed`: rollout-steps per second at the full TRM-MLP size (random weights; 25.6 GFLOP each), in
float32 and with matmul precision "bfloat16", compared with this machine's matrix product, in
float32 and in bfloat16 summed in float32, and with the plain PyTorch statement of the same model in
`convert/torch_trm.py`, eager, float32 and bfloat16. The programs take turns in every round; medians
of the ratios are printed. About five minutes on two idle CPU cores.

`training`: samples per second of one optimiser step of the preset `sudoku9` (a sample is one row
for one supervision step), compared with the matrix products and with the PyTorch statement of the
same step in `convert/torch_training.py`, eager and compiled, float32 and bfloat16.

`layouts`: the cost of distribution: pmap and mesh on one device against a plain jit; and a sweep by
two processes with a core each, in one folder, against two independent sweeps.

`memory`: the buffers that XLA assigns to `solve` for the bundled model, 64 puzzles, K = 16 and 128.

`rules`: seconds on one core to read, check and encode 10,000 puzzles from a file, and to check 100
answers to each against the rules; 9x9 Sudokus and 13x13 mazes.

`anytime`: `solve_anytime` against `solve` on the same puzzles of the bundled `maze11`, K = 32,
D = 16, sigma 0.1, stopping at Q >= 2: wall time, rollout-steps per second, idle lanes, puzzles
solved. About ten minutes on two CPU cores.

`targets`: what the TPU's compiler says of every full-size model on a TPU that need not be there, at
the default lane tile and at the best: cycles per rollout-step and what follows from them, which are
the compiler's static estimates and no measurement; memory; the roofline. Each of some 20 programs
takes about a minute to compile; --json FILE keeps what was compiled, and is read again.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

import ptrm_jax
from ptrm_jax import console, mesh, targets, tasks, timing
from ptrm_jax.checks import survey
from ptrm_jax.checks.speed import full_size
from ptrm_jax.config import Backend, MatmulPrecision
from ptrm_jax.files import write_text
from ptrm_jax.model import flops_per_rollout_step, init_params
from ptrm_jax.sweep import folder as sweep_folder, journal
from ptrm_jax.tasks import maze, sudoku
from ptrm_jax.training import presets
from ptrm_jax.training.examples import augmentation
from ptrm_jax.training.step import Examples, init_state, make_model, make_step, place

FULL = dataclasses.replace(full_size()["sudoku-extreme"], forward_dtype="float32")


def speed(rounds: int, lanes: int, depth: int, lane_tile: int, torch_batch: int) -> None:
    """Prints rollout-steps per second of every program, and ratios."""
    import torch

    from convert import mapping
    from convert.torch_trm import TorchTRM

    devices = mesh.local_devices()
    params = init_params(ptrm_jax.TRM(FULL), jax.random.key(0))
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, FULL.vocab_size, (lanes, FULL.seq_len), dtype=np.int32)
    puzzles = ptrm_jax.make_puzzles(inputs)
    placed = mesh.replicate(params, devices)
    state = mapping.to_upstream(params, FULL)

    def solve(precision: ptrm_jax.Precision) -> object:
        return mesh.solve(
            ptrm_jax.TRM(FULL, precision),
            placed,
            jax.random.key(1),
            puzzles,
            num_rollouts=1,
            depth=depth,
            sigma=0.3,
            lane_tile=lane_tile,
            devices=devices,
        )

    def torch_step(dtype: torch.dtype) -> Callable[[], object]:
        net = TorchTRM(FULL, state, dtype)
        tokens = torch.from_numpy(np.resize(inputs, (torch_batch, FULL.seq_len)))

        @torch.inference_mode()
        def run() -> None:
            x = net.embed(tokens, torch.zeros(torch_batch, dtype=torch.int32))
            y, z = net.initial_carry(torch_batch)
            y, z = net.deep_recursion(y, z + 0.3 * torch.randn(z.shape).to(dtype), x)
            net.heads(y)

        return run

    flops = flops_per_rollout_step(FULL)
    print(
        f"TRM-MLP, {flops / 1e9:.1f} GFLOP per rollout-step\n"
        f"{_jax_line(devices)}, tile {lane_tile}, {lanes} lanes x {depth} steps\n"
        f"{_torch_line()}, batch {torch_batch}"
    )
    race(
        {
            "float32": timing.Side(lambda: solve(ptrm_jax.Precision()), lanes * depth),
            "bfloat16 products": timing.Side(
                lambda: solve(ptrm_jax.Precision(matmul="bfloat16")), lanes * depth
            ),
            **timing.matrix_products(flops),
            "PyTorch float32": timing.Side(torch_step(torch.float32), torch_batch),
            "PyTorch bfloat16": timing.Side(torch_step(torch.bfloat16), torch_batch),
        },
        "rollout-steps",
        flops,
        rounds,
        num_ours=2,
    )


def training(rounds: int) -> None:
    """Prints samples per second of an optimiser step of every program, and ratios."""
    import torch

    from convert import mapping
    from convert.torch_training import Batch, TorchTrainer

    devices = mesh.local_devices()
    config = presets.load("sudoku9")
    cfg, num_rows = config.model, config.batch_size
    data = ptrm_jax.read_dataset("sudoku9").head(num_rows)
    inputs, labels = data.puzzles.inputs, data.labels
    identifiers = data.puzzles.puzzle_identifiers
    weights = mapping.to_upstream(init_state(make_model(config), config).params, cfg)
    batch = jax.device_put(
        Examples(inputs, labels, identifiers), mesh.sharding(devices, split=True)
    )

    def ours(matmul: MatmulPrecision) -> Callable[[], object]:
        own = dataclasses.replace(config, matmul_precision=matmul)
        model = make_model(own)
        step = make_step(model, own, augmentation(own), data.ignore_label, devices)
        state = place(init_state(model, own), devices)

        def run() -> object:
            nonlocal state
            state, metrics = step(state, batch)
            return metrics

        return run

    def theirs(dtype: torch.dtype, compiled: bool) -> Callable[[], object]:
        assert config.optimizer != "muon"  # which upstream does not have
        trainer = TorchTrainer(
            cfg,
            weights,
            dtype=dtype,
            optimizer=config.optimizer,
            weight_decay=config.weight_decay,
            compile=compiled,
        )
        draws = (torch.zeros(num_rows, dtype=torch.bool), torch.full((num_rows,), 2))
        return lambda: trainer.step(
            Batch(inputs, labels, identifiers),
            lr=1e-4,
            puzzle_emb_lr=1e-4,
            explore=draws[0],
            min_steps=draws[1],
            ema_decay=0.999,
        )

    # Forward through every cycle, backward through the last, at twice the cost.
    flops = flops_per_rollout_step(cfg) * (cfg.H_cycles + 2) // cfg.H_cycles
    print(
        f"sudoku9, one optimiser step of {num_rows} rows, {flops / 1e9:.2f} GFLOP each; "
        f"{config.optimizer}\n"
        f"{_jax_line(devices)}, micro-batch {config.micro_batch}\n"
        f"{_torch_line()}"
    )
    sides = {
        "float32": timing.Side(ours("highest"), num_rows),
        "bfloat16 products": timing.Side(ours("bfloat16"), num_rows),
        **timing.matrix_products(flops),
    }
    for dtype in (torch.float32, torch.bfloat16):
        for compiled in (False, True):
            name = str(dtype).removeprefix("torch.") + (" compiled" if compiled else "")
            sides[f"PyTorch {name}"] = timing.Side(theirs(dtype, compiled), num_rows)
    race(sides, "samples", flops, rounds, num_ours=2)


def layouts(rounds: int) -> None:
    """Prints rollout-steps per second by back end, and of joint and independent processes."""
    devices = mesh.local_devices(1)
    model, params = ptrm_jax.load("sudoku9")
    params = mesh.replicate(params, devices)
    puzzles = ptrm_jax.read_dataset("sudoku9").head(16).puzzles
    key = jax.random.key(0)
    settings: dict[str, Any] = {"num_rollouts": 4, "depth": 16}

    def plain() -> object:
        return jax.device_get(ptrm_jax.solve(model, params, key, puzzles, **settings))

    def spread(backend: Backend) -> Callable[[], object]:
        return lambda: mesh.solve(
            model, params, key, puzzles, **settings, devices=devices, backend=backend
        )

    flops = flops_per_rollout_step(model.config)
    print(f"sudoku9, 64 lanes x 16 steps, {_jax_line(devices)}")
    calls = {"jit": plain, "pmap": spread("pmap"), "mesh": spread("mesh")}
    sides = {name: timing.Side(call, 64 * 16) for name, call in calls.items()}
    race(sides, "rollout-steps", flops, rounds)
    _processes(rounds)


def _processes(rounds: int) -> None:
    """Two processes of one sweep against two sweeps, each process pinned to a core."""
    rates = []
    cores = sorted(os.sched_getaffinity(0))[:2]
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            together = _rate(cores, [(f"{folder}/one", f"{i}/2") for i in range(2)])
            alone = _rate(cores, [(f"{folder}/{i}", f"{i}/2") for i in range(2)])
        rates.append((together, alone))
        print(f"round {number + 1}: {together:.0f} and {alone:.0f} rollout-steps/s")
    found = timing.ratio(*zip(*rates, strict=True))
    print(
        f"two processes of one sweep against two sweeps side by side: {found.median:.3f} "
        f"[{found.low:.3f}, {found.high:.3f}]"
    )


def _rate(cores: Sequence[int], runs: Sequence[tuple[str, str]]) -> float:
    """Rollout-steps per second of sweeps run at once, a core each, without compilation."""
    program = [sys.executable, str(Path(__file__).with_name("ptrm_sweep.py"))]
    program += ["--num-puzzles", "32", "--rollouts", "16", "--sigmas", "0.3", "--no-equal-compute"]
    processes = []
    all_cores = os.sched_getaffinity(0)
    for core, (output, shard) in zip(cores, runs, strict=True):
        os.sched_setaffinity(0, {core})  # inherited by the new process
        processes.append(
            subprocess.Popen(
                [*program, "--output", output, "--shard", shard],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    os.sched_setaffinity(0, all_cores)
    for process in processes:
        if process.wait() not in (0, 3):  # 3: units of the other shard are missing
            raise RuntimeError("a sweep failed")
    rate = 0.0
    for output, shard in runs:
        name = f"shard-{shard.replace('/', '-of-')}.journal"
        records = journal.read_one(Path(output) / "journal" / name).payloads
        parts = [sweep_folder.unpack(payload)[1] for payload in records]
        rate += sum(p.unit.rollout_steps for p in parts) / sum(p.seconds for p in parts)
    return rate


def race(
    sides: dict[str, timing.Side], unit: str, flops: int, rounds: int, num_ours: int = 1
) -> None:
    """Prints the rates of all sides, and ratios of the first ones, as `timing.table`."""
    rates = timing.rates(sides, rounds)
    print(f"{rounds} rounds; medians, and of ratios [lowest, highest]\n")
    print(timing.table(rates, unit, flops, num_ours))


def _jax_line(devices: Sequence[jax.Device]) -> str:
    return f"jax {jax.__version__}, {len(devices)} x {devices[0].device_kind}"


def _torch_line() -> str:
    import torch

    return f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def footprint(num_rollouts: int, num_puzzles: int = 64, depth: int = 16) -> dict[str, int]:
    """Bytes that XLA assigns to `solve` for the bundled sudoku9, by kind."""
    model, params = ptrm_jax.load("sudoku9")
    puzzles = ptrm_jax.read_dataset("sudoku9").head(num_puzzles).puzzles
    key = jax.random.key(0)
    run = jax.jit(
        lambda params, puzzles: ptrm_jax.solve(
            model, params, key, puzzles, num_rollouts=num_rollouts, depth=depth
        )
    )
    used = run.lower(params, puzzles).compile().memory_analysis()
    assert used is not None
    return {
        "arguments": used.argument_size_in_bytes,
        "temporary": used.temp_size_in_bytes,
        "returned": used.output_size_in_bytes,
    }


def memory() -> None:
    """Prints the memory of `solve` at two widths."""
    sizes = {k: footprint(k) for k in (16, 128)}
    print("solve, sudoku9, 64 puzzles, D=16, answers and Q only; bytes")
    print("     K" + "".join(f"{name:>14}" for name in (*sizes[16], "peak")))
    for k, parts in sizes.items():
        print(f"{k:6d}" + "".join(f"{n:14,d}" for n in (*parts.values(), sum(parts.values()))))
    narrow = sum(sizes[16].values()) + sizes[128]["returned"]
    print(
        f"peak at K=128 is {sum(sizes[128].values()) / narrow:.3f} of (peak at K=16 + returned at "
        "K=128)"
    )


def rules() -> None:
    """Prints seconds on one core of reading puzzles and of checking answers."""
    num_puzzles, num_rollouts, part = 10_000, 100, 500
    rng = np.random.default_rng(0)
    print(f"{num_puzzles:,} puzzles x {num_rollouts} answers, seconds of one core")
    for name, task, size, write in (
        ("sudoku 9x9", tasks.load("sudoku"), 9, sudoku.write_csv),
        ("maze 13x13", tasks.load("maze"), 13, maze.write_csv),
    ):
        inputs, labels = task.generate(size, num_puzzles, seed=0, split="train")
        with tempfile.TemporaryDirectory() as folder:
            write(f"{folder}/puzzles.csv", inputs, labels)
            start = time.process_time()
            ptrm_jax.read_dataset(f"{folder}/puzzles.csv")
            reading = time.process_time() - start
        checking, right = 0.0, 0
        for first in range(0, num_puzzles, part):
            # Half of the answers are the label; in the others one cell is changed.
            answers = np.repeat(labels[first : first + part, None], num_rollouts, axis=1)
            cells = rng.integers(0, answers.shape[-1], (part, num_rollouts // 2, 1))
            np.put_along_axis(answers[:, ::2], cells, 1, axis=-1)
            start = time.process_time()
            right += int(task.satisfies_rules(answers, inputs[first : first + part, None]).sum())
            checking += time.process_time() - start
        share = right / (num_puzzles * num_rollouts)
        print(f"{name}: reading {reading:.2f}, checking {checking:.2f} ({share:.0%} right)")


def anytime(rounds: int, num_puzzles: int = 256) -> None:
    """Prints wall time, rates and accuracy of stopping and of fixed K x D, in turns."""
    devices = mesh.local_devices()
    model, params = ptrm_jax.load("maze11")
    placed = mesh.replicate(params, devices)
    data = ptrm_jax.read_dataset("maze11").head(num_puzzles)
    key, rollouts, depth, stop = jax.random.key(0), 32, 16, ptrm_jax.Stop(q_logit=2.0)
    settings: dict[str, Any] = {"depth": depth, "sigma": 0.1, "devices": devices}

    def fixed(num_puzzles: int) -> float:
        right = 0
        for row in range(0, num_puzzles, 8):  # in calls of 256 lanes, as a sweep
            found = mesh.solve(
                model,
                placed,
                key,
                data.puzzles.take(np.arange(row, row + 8)),
                num_rollouts=rollouts,
                **settings,
            )
            right += int(_solved(data, found.answer, row).sum())
        return right / num_puzzles

    def stopping() -> tuple[float, Any, Any]:
        found, use = mesh.solve_anytime_with_use(
            model, placed, key, data.puzzles, stop=stop, max_rollouts=rollouts, **settings
        )
        return float(_solved(data, found.answer).mean()), found.rollout_steps, use

    fixed(8)
    stopping()
    print(f"maze11, {num_puzzles} puzzles, K={rollouts}, D={depth}, {_jax_line(devices)}")
    total = num_puzzles * rollouts * depth
    walls, rates = [], []
    for number in range(rounds):
        start = time.perf_counter()
        all_right = fixed(num_puzzles)
        between = time.perf_counter()
        right, steps, use = stopping()
        seconds = between - start, time.perf_counter() - between
        walls.append((seconds[0], seconds[1]))
        rates.append((use.run / seconds[1], total / seconds[0]))
        print(
            f"round {number + 1}: fixed {seconds[0]:.1f} s, {100 * all_right:.1f} % solved; "
            f"stopping {seconds[1]:.1f} s, {100 * right:.1f} % solved"
        )
    wall, rate = (timing.ratio(*zip(*pairs, strict=True)) for pairs in (walls, rates))
    lanes = use.run + use.idle + use.drained
    print(
        f"wall time, fixed over stopping: {wall.median:.1f} [{wall.low:.1f}, {wall.high:.1f}]\n"
        f"rollout-steps per second, stopping over fixed: {rate.median:.2f} [{rate.low:.2f}, "
        f"{rate.high:.2f}]\n"
        f"rollout-steps: needed {steps.sum()} ({100 * steps.sum() / total:.1f} % of K x D), run "
        f"{use.run}\n"
        f"lanes idle while the queue was not empty {100 * use.idle / lanes:.2f} %, after it "
        f"{100 * use.drained / lanes:.2f} %"
    )


def target_table(chip: str, json_file: str | None, tiles_file: str | None) -> None:
    """Prints what the compiler says of every full-size model on a chip."""
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    cache = targets.Cache(json_file)
    say = console.messages().print
    rows = survey.survey(chip, cache=cache, said=lambda text: say(f"compiling: {text}"))
    print(f"{chip}, one chip, D=16: {targets.NOTE}; memory is that of the compiled program\n")
    print(survey.survey_table(rows))
    if tiles_file is not None:
        write_text(Path(tiles_file), survey.table_of_tiles(rows))


def _solved(data: ptrm_jax.data.Dataset, answers: np.ndarray, first: int = 0) -> np.ndarray:
    labels = data.labels[first : first + len(answers)]
    return ptrm_jax.metrics.exact(answers[:, None], labels, ignore_label=data.ignore_label)[:, 0]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure speed and memory."""

    what: tyro.conf.Positional[
        Literal["speed", "training", "layouts", "memory", "rules", "anytime", "targets"]
    ]
    """The measurement."""
    rounds: int = 5
    """Rounds in which the programs take turns."""
    lanes: int = 16
    """`speed`: rollouts of one call of solve."""
    depth: int = 4
    """`speed`: supervision steps of one call of solve."""
    lane_tile: int = 4
    """`speed`: rollouts that pass through the network together."""
    torch_batch: int = 32
    """`speed`: rollouts of one call of PyTorch."""
    chip: str = "v5e"
    """`targets`: v5e, v5p or v6e."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """`targets`: file of all that the compiler said, new or of an earlier run."""
    tiles: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """`targets`: also write the best lane tiles; the package has them in
    ptrm_jax/assets/lane_tiles.json."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    return console.run_command(
        lambda: _measure(console.parse(Arguments, argv, description=__doc__))
    )


def _measure(given: Arguments) -> None:
    mesh.use_cpu_cores()
    measurements: dict[str, Callable[[], None]] = {
        "speed": lambda: speed(
            given.rounds, given.lanes, given.depth, given.lane_tile, given.torch_batch
        ),
        "training": lambda: training(given.rounds),
        "layouts": lambda: layouts(given.rounds),
        "memory": memory,
        "rules": rules,
        "anytime": lambda: anytime(given.rounds),
        "targets": lambda: target_table(given.chip, given.json, given.tiles),
    }
    measurements[given.what]()


if __name__ == "__main__":
    sys.exit(main())
