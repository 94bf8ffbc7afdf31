"""Kill training at random moments, start it again until it ends, and compare with a run left alone.

    python tests/kills/kill_train.py --kills 10

The loss curve, validation scores, exported weights and all of the last checkpoint must be the same, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
import yaml
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import toy_run
from spawn_ranks import start_fork_server

from weatherfm.cli import run_command
from weatherfm.training.checkpoints.checkpoint import Saved, newest
from weatherfm.training.stepping.weight_average import WeightAverage

TIMINGS = {"samples_per_second", "data_wait_share", "memory_gib"}


@dataclass
class Kill:
    run: str
    after: float
    """Seconds after the start of the process."""
    checkpoint: str
    """Newest whole checkpoint at that moment."""
    logged: int
    """Step of the last line in metrics.jsonl."""
    draft: bool
    """A half-written checkpoint was lying there."""

    def __str__(self) -> str:
        return (
            f"{self.run:>8} {self.after:10.2f} s {self.checkpoint:>15} {self.logged:>6}   {'yes' if self.draft else ''}"
        )


def write_config(folder: Path, run: str, **training) -> Path:
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(toy_run.run_settings(folder, run, **training)))
    return path


def environment() -> dict[str, str]:
    """One thread: sums run over another number of threads round otherwise, and bits are compared."""
    return os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


def fork(config: Path) -> ForkServerProcess:
    """Training in a process of its own, one thread; forked from one that has imported all, which takes longer."""
    return fork_of(_train, config)


def fork_of(function: Callable[..., object], *arguments: object) -> ForkServerProcess:
    start_fork_server()
    process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
    process.start()
    return process


def _train(config: Path) -> None:
    os.environ.update(environment())
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
    sys.exit(run_command(["train", str(config)]))


def killed_in_step(step: int, config: Path) -> None:
    """Train in a process of its own, and kill it in that step."""
    process = fork_of(_train_until, step, config)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _train_until(step: int, config: Path) -> None:
    update = WeightAverage.update

    def die(self: WeightAverage, model: torch.nn.Module, now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        update(self, model, now)

    WeightAverage.update = die
    _train(config)


def moves(run: Path) -> bool:
    """Whether training has written its first line."""
    metrics = run / "metrics.jsonl"
    return metrics.is_file() and metrics.stat().st_size > 0


def lines(run: Path) -> list[dict]:
    """What training has logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def result(run: Path) -> dict[str, object]:
    """All of a finished run that must not depend on interruptions."""
    return {
        "curve": [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines(run)],
        "weights": (run / "weights.safetensors").read_bytes(),
        "checkpoint": last_checkpoint(run),
    }


def last_checkpoint(run: Path) -> dict[str, object]:
    """What the newest checkpoint holds; which file holds it does not matter."""
    saved = newest(run / "checkpoints")
    bits = {name: (value.dtype, value.shape, value.numpy().tobytes()) for name, value in saved_tensors(saved).items()}
    return {"step": saved.step, "record": saved.record, **bits}


def saved_tensors(saved: Saved) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, whatever layout wrote them, read with PyTorch's own tool."""
    with tempfile.TemporaryDirectory() as folder:
        dcp_to_torch_save(saved.path, f"{folder}/all.pt")
        return torch.load(f"{folder}/all.pt")


def look(run: Path, after: float) -> Kill:
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("*"))
    whole = [name for name in checkpoints if not name.startswith(".")]
    metrics = run / "metrics.jsonl"
    logged = [line for line in metrics.read_text().splitlines() if line.endswith("}")] if metrics.is_file() else []
    return Kill(
        run=run.name,
        after=after,
        checkpoint=whole[-1] if whole else "none",
        logged=json.loads(logged[-1])["step"] if logged else 0,
        draft=len(whole) < len(checkpoints),
    )


def run_alone(folder: Path, **training) -> tuple[float, float]:
    """Train once undisturbed: seconds until training moves, and seconds it moves for."""
    with_imports = fork_of(int)  # the first of all, which waits for them
    with_imports.join()
    began, first = time.monotonic(), None
    process = fork(write_config(folder, "alone", **training))
    while process.is_alive():
        if first is None and moves(folder / "alone"):
            first = time.monotonic()
        time.sleep(0.01)
    assert process.exitcode == 0
    assert first is not None
    return first - began, time.monotonic() - first


def train_with_kills(folder: Path, run: str, waits: list[float], **training) -> list[Kill]:
    """Train to the end, each process killed after the next of `waits` seconds unless it ends before."""
    config, done = write_config(folder, run, **training), []
    for wait in waits:
        process = fork(config)
        process.join(wait)
        process.kill()  # one that has ended does not mind
        process.join()
        if process.exitcode == 0:
            return done
        assert process.exitcode == -signal.SIGKILL
        done.append(look(folder / run, wait))
        if (folder / run / "weights.safetensors").is_file():  # it was killed after its work
            break
    process = fork(config)
    process.join()
    assert process.exitcode == 0
    return done


def kill_repeatedly(folder: Path, kills: int, seed: int, report=lambda line: None, **training) -> list[Kill]:
    """Kill as many runs as it takes for `kills` kills in all; each must end as the one left alone does.

    Raises:
        AssertionError: a run ended otherwise, or failed.
    """
    toy_run.make_store(folder)
    starting, training_time = run_alone(folder, **training)
    report(f"a run left alone takes {starting:.1f} s to start and {training_time:.1f} s to train")
    report(f"{'run':>8} {'killed after':>12} {'checkpoint':>15} {'line':>6}   half-written")
    expected, moments, done = result(folder / "alone"), random.Random(seed), []
    while len(done) < kills:
        run = f"killed{len(done)}"
        waits = [moments.uniform(0.8 * starting, starting + training_time / 3) for _ in range(kills - len(done))]
        done += train_with_kills(folder, run, waits, **training)
        for name, value in result(folder / run).items():
            assert value == expected[name], f"{run}: {name} differs from the run left alone"
        report(
            "\n".join(
                [
                    *(str(kill) for kill in done if kill.run == run),
                    f"{run:>8} ended as the run left alone, bit for bit",
                ]
            )
        )
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills = kill_repeatedly(Path(folder), arguments.kills, arguments.seed, print, steps=300, checkpoint_every=4)
    print(f"{len(kills)} kills: nothing lost, same loss curve, same weights")


if __name__ == "__main__":
    main()
