#!/usr/bin/env bash
# The one command: sets up the environment and runs the main job on the embedded digits. Can be run again at any time.
#   bash tools/quick_start.sh [arguments of quick_start.py]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null

PYTHON=$(bash tools/setup_env.sh | tail -n 1)
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" tools/quick_start.py "$@"
