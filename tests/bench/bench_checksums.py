"""What checksums cost those who read: chunks with crc32c against the same without, and weights as they are loaded.

    python tests/bench/bench_checksums.py --rounds 15

Fields are read as training and evaluation read them (tensorstore, random times of all channels), and with zarr-python,
once with and once without, alternately; of each pair the ratio. Seconds are those of the processor, which others that
work on the machine change less. The page cache is warm: from a disk the share is smaller.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore as ts
import torch
import zarr
from safetensors import safe_open
from safetensors.torch import save_file

from weatherfm.evaluation.forecasts.schema import array_metadata
from weatherfm.model.tensor_checksums import CheckedTensors, sealed

_SHAPES = {"5.625 deg": (64, 33, 32, 64), "1.5 deg": (16, 33, 121, 240), "0.25 deg": (3, 8, 721, 1440)}


def write(path: Path, values: np.ndarray, checked: bool) -> None:
    """One array as forecasts and stores have it: shards of 8 times, chunks of one time and 1 MiB of channels."""
    block = max(1, min(values.shape[1], 2**20 // values[0, 0].nbytes))
    channels = -(-values.shape[1] // block) * block
    shape, chunk = (min(8, len(values)), channels, *values.shape[2:]), (1, block, *values.shape[2:])
    told = array_metadata(("time", "channel", "latitude", "longitude"), values.shape, shape, chunk, np.float32, {})
    if not checked:
        told = json.loads(json.dumps(told).replace(', {"name": "crc32c"}', ""))
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}, "metadata": told}
    ts.open(spec, create=True).result().write(values).result()


def by_tensorstore(path: Path, times: np.ndarray) -> Callable[[], object]:
    array = ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}, read=True).result()
    return lambda: array.oindex[times].read().result()


def by_zarr(path: Path, times: np.ndarray) -> Callable[[], object]:
    array = zarr.open_array(path, mode="r")
    return lambda: [array[int(at)] for at in times]


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ratios(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """(median ratio of pairs, quartiles' distance, seconds of `other`)."""
    one(), other()
    found = []
    for i in range(rounds):
        if i % 2:
            found.append(seconds(one) / seconds(other))
        else:
            below = seconds(other)
            found.append(seconds(one) / below)
    low, middle, high = statistics.quantiles(found, n=4)
    return middle, high - low, min(seconds(other) for _ in range(3))


def main(rounds: int) -> None:
    rng = np.random.default_rng(0)
    print(f"{'what':<34}{'GB/s without':>14}{'ratio':>8}{'quartiles':>11}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, shape in _SHAPES.items():
            values = np.cumsum(rng.standard_normal(shape, np.float32), axis=-1)
            times = rng.permutation(len(values))[: max(3, len(values) // 2)]
            for checked in (True, False):
                write(folder / f"{name}-{checked}", values, checked)
            for reader in (by_tensorstore, by_zarr):
                with_, without = (reader(folder / f"{name}-{checked}", times) for checked in (True, False))
                middle, spread, fastest = ratios(with_, without, rounds)
                rate = values[times].nbytes / fastest / 1e9
                print(f"{reader.__name__ + ' ' + name:<34}{rate:>14.2f}{middle:>8.3f}{spread:>11.3f}", flush=True)
        tensors = {f"t{i}": torch.randn(2**22) for i in range(20)}  # 84 million weights
        header = sealed({"format": "x"}, tensors)
        save_file(tensors, folder / "w", metadata={"weatherfm": json.dumps(header)})

        def load(told: object) -> None:
            with safe_open(folder / "w", framework="pt") as file:
                opened = CheckedTensors("w", file, told)
                for tensor in tensors:
                    opened.get_tensor(tensor).to("cpu", copy=True)

        middle, spread, fastest = ratios(lambda: load(header), lambda: load({}), rounds)
        rate = 4 * sum(map(torch.numel, tensors.values())) / fastest / 1e9
        print(f"{'load 84 million weights':<34}{rate:>14.2f}{middle:>8.3f}{spread:>11.3f}  ({fastest:.2f} s without)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
