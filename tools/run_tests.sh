#!/usr/bin/env bash
# The one test command: environment, lint, tests. Arguments go to pytest: bash tools/run_tests.sh -k era -x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null

PYTHON=$(bash tools/setup_env.sh | tail -n 1)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 # tiny tensors: more threads would only get in each other's way

"$PYTHON" -m ruff check --output-format concise .
"$PYTHON" -m ruff format --check --output-format concise .

WORKERS=()
if (($(env -u OMP_NUM_THREADS nproc) >= 2)); then WORKERS=(-n 2); fi # nproc answers OMP_NUM_THREADS if that is set
exec "$PYTHON" -m pytest "${WORKERS[@]}" "$@"
