#!/usr/bin/env bash
# What only a GPU can show, as a table; no section is begun after eight minutes:
#
#     bash tests/gpu/run.sh            on this machine's first GPU
#     bash tests/gpu/run.sh --dry      everything in it, small, on the CPU: a few minutes
#     bash tests/gpu/run.sh --only memory,speed
#
# Nothing need be installed but torch, numpy, tensorstore, pydantic, PyYAML and tqdm: the package is linked, not built.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
links="$(mktemp -d)"
trap 'rm -rf "$links"' EXIT
mkdir "$links/weatherfm"
ln -s "$root"/weatherfm/* "$links/weatherfm/"
ln -s "$root"/{data_pipeline,training,evaluation,configs} "$links/weatherfm/"

export PYTHONPATH="$links:$root/tests:$root/tests/bench:$root/tests/gpu" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
"${PYTHON:-python3}" "$root/tests/gpu/measure.py" "$@"
