"""The table of tests/gpu/run.sh: each section a question that a CPU cannot answer; `--dry` asks them small, on one."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback

import torch
from data_sections import data_wait, forecasts
from table import Settings, peak_flops
from training_sections import block_sizes, graphs, memory, speed, utilisation

SECTIONS = {
    "graphs": graphs,
    "memory": memory,
    "speed": speed,
    "utilisation": utilisation,
    "blocks": block_sizes,
    "forecast": forecasts,
    "data": data_wait,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="small, on the CPU; figures mean nothing")
    parser.add_argument("--only", default="", help="comma separated sections")
    parser.add_argument("--minutes", type=float, default=8.0, help="no section is begun after so long")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        print("no GPU here; --dry runs everything on the CPU, small")
        return 2
    where = "CPU, dry" if options.dry else torch.cuda.get_device_name()
    settings = Settings("cpu" if options.dry else "cuda", options.dry, peak_flops(where))
    print(f"torch {torch.__version__}, {where}\n\n| section | what | value | aim | |\n|---|---|---|---|---|")
    begun, status = time.monotonic(), 0
    wanted = options.only.split(",") if options.only else list(SECTIONS)
    for name in wanted:
        if time.monotonic() - begun > 60 * options.minutes:
            print(f"| {name} | left out: {options.minutes:g} minutes are over | | | |", flush=True)
            continue
        try:
            for row in SECTIONS[name](settings):
                mark = {None: "", True: "yes", False: "NO"}[None if options.dry else row.good]
                print(f"| {name} | {row.what} | {row.value} | {row.aim} | {mark} |", flush=True)
        except Exception:  # noqa: BLE001 - the other sections are still worth their time
            status = 1
            print(f"| {name} | failed | | | NO |", flush=True)
            traceback.print_exc()
        finally:
            gc.collect()
            if not options.dry:
                torch.cuda.empty_cache()
    print(f"\n{time.monotonic() - begun:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
