#!/usr/bin/env bash
# What only a GPU can show, as a table; no section is begun after eight minutes:
#
#     bash tests/gpu/run.sh            on this machine's first GPU
#     bash tests/gpu/run.sh --dry      everything in it, small, on the CPU: a few minutes
#     bash tests/gpu/run.sh --only memory,speed
#
# Nothing need be installed but torch, numpy, tensorstore, pydantic, PyYAML and tqdm: the package is not built.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
export PYTHONPATH="$root:$root/tests/fixtures:$root/tests/bench:$root/tests/gpu" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
"${PYTHON:-python3}" "$root/tests/gpu/measure.py" "$@"
