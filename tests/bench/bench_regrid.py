"""Regridding 0.25 degrees (721 x 1440) conservatively, one core: ours beside three obvious ways of writing it.

    python tests/bench/bench_regrid.py
    python tests/bench/bench_regrid.py --fields 32 --threads 4        and dask with threads

`matmul` multiplies by dense float32 weights of each axis, `xarray.dot` does the same by name, `one sparse matrix` has a
row a target cell and a column a source cell. GB/s is float32 input by processor time, the best of some repeats; peak
is what a call allocates beside its input. Mean error: largest change of the area mean, relative; constant error: of a
field of 273.15. Both are counted in float64.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: a core is compared with a core

import dask
import dask.array as da
import numpy as np
import scipy.sparse
import xarray as xr

from weatherfm.data_pipeline.fields.regrid import Regridder
from weatherfm.data_pipeline.fields.regrid_weights import conservative_weights
from weatherfm.data_pipeline.fields.target_grid import global_grid
from weatherfm.data_pipeline.store_config import RegridConfig

SOURCE = global_grid(RegridConfig(resolution=0.25, poles=True))


def ours(target, method="conservative"):
    return Regridder(SOURCE, target, method)


def matmul(target):
    lat, lon = (weights.toarray().astype(np.float32) for weights in conservative_weights(SOURCE, target))
    return lambda fields: lat @ fields @ lon.T


def xarray_dot(target):
    lat, lon = (weights.toarray().astype(np.float32) for weights in conservative_weights(SOURCE, target))
    lat, lon = xr.DataArray(lat, dims=("y", "latitude")), xr.DataArray(lon, dims=("x", "longitude"))

    def regrid(fields):
        array = xr.DataArray(fields, dims=("time", "latitude", "longitude"))
        return xr.dot(xr.dot(array, lat, dim="latitude"), lon, dim="longitude").transpose("time", "y", "x").values

    return regrid


def one_sparse_matrix(target):
    weights = scipy.sparse.kron(*conservative_weights(SOURCE, target), format="csr")
    return lambda fields: (weights @ fields.reshape(len(fields), -1).T).T.reshape(-1, *target.shape).astype(np.float32)


WAYS = {
    "weatherfm": ours,
    "matmul float32": matmul,
    "xarray.dot float32": xarray_dot,
    "one sparse matrix": one_sparse_matrix,
}


def seconds(work, repeats):
    """Processor time: other work on the machine does not count."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def peak(work):
    """MiB."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def errors(regrid, fields, target):
    """(of the area mean, of a constant), relative."""
    before = (fields.astype(float) * SOURCE.area_weights).mean((-2, -1))
    after = (regrid(fields).astype(float) * target.area_weights).mean((-2, -1))
    constant = regrid(np.full((1, *SOURCE.shape), 273.15, np.float32)).astype(float)
    value = float(np.float32(273.15))
    return np.abs(after / before - 1).max(), np.abs(constant / value - 1).max()


def line(name, regrid, fields, target, repeats):
    spent = seconds(lambda: regrid(fields), repeats)
    row = f"{name:22s}{len(fields) / spent:9.0f}{fields.nbytes / spent / 1e9:8.2f}{peak(lambda: regrid(fields)):9.1f}"
    mean, constant = errors(regrid, fields, target)
    print(f"{row}{mean:12.1e}{constant:12.1e}", flush=True)


def threaded(fields, target, threads):
    """Wall-clock GB/s through dask, a field a block."""
    regridder = ours(target)
    lazy = da.from_array(fields, chunks=(1, *SOURCE.shape))
    lazy = da.map_blocks(regridder, lazy, dtype=np.float32, chunks=((1,) * len(fields), *((n,) for n in target.shape)))
    with dask.config.set(scheduler="threads", num_workers=threads):
        lazy.compute()
        start = time.perf_counter()
        lazy.compute()
        return fields.nbytes / (time.perf_counter() - start) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    lat = np.deg2rad(SOURCE.latitude)[:, None]
    noise = np.random.default_rng(0).normal(0, 10, (options.fields, *SOURCE.shape))
    fields = (noise + 250 + 40 * np.cos(lat)).astype(np.float32)
    for resolution in (5.625, 2.8125, 1.40625):
        target = global_grid(RegridConfig(resolution=resolution))
        print(f"\n721 x 1440 -> {target.shape[0]} x {target.shape[1]}, {options.fields} fields of 4.2 MB, one core")
        print(f"{'':22s}{'fields/s':>9s}{'GB/s':>8s}{'peak MiB':>9s}{'mean error':>12s}{'const error':>12s}")
        for name, way in WAYS.items():
            line(name, way(target), fields, target, options.repeats)
        for method in ("bilinear", "nearest"):
            line(f"weatherfm {method}", ours(target, method), fields, target, options.repeats)
        rates = ", ".join(f"{n} threads {threaded(fields, target, n):.2f}" for n in options.threads)
        print(f"in dask, a field a block, wall clock, GB/s: {rates}")


if __name__ == "__main__":
    main()
