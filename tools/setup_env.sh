#!/usr/bin/env bash
# Sets up the environment of the tools and tests, outside the clone, and prints its python as the last line of stdout:
#   PYTHON=$(bash tools/setup_env.sh)
# A finished environment is returned at once, a half-finished one is built anew.
#   MMRKD_PYTHON  an existing interpreter to use instead; only its imports are checked
#   MMRKD_ENV     the folder of the environment (default: one per requirements in the user's cache, shared by clones)
set -euo pipefail
exec 3>&1 1>&2 # stdout is for the one line that callers read

ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)
REQ=$ROOT/requirements
IMPORTS='import torch, mmengine, mmcv, mmdet, mmpretrain'
NEEDED_GB=9

say() { echo "setup_env: $*" >&2; }
die() {
  say "error: $*"
  exit 1
}

use_existing() {
  local found
  command -v "$1" >/dev/null ||
    die "MMRKD_PYTHON=$1 is no interpreter: set it to the python of an environment, or unset it."
  found=$("$1" -c "import sys; $IMPORTS; print(sys.executable)" | tail -n 1) ||
    die "MMRKD_PYTHON=$1 fails at '$IMPORTS' (above): install the stack there, or unset it to have one set up."
  echo "$found" >&3
}

find_python() {
  local name
  # 3.11 first: the prebuilt wheels fit it. Each is tried, not just looked up: a pyenv shim may have nothing behind it
  # and a system python no ensurepip.
  for name in python3.11 python3.12 python3.10 python3 python; do
    if "$name" -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  die "no python 3.10, 3.11 or 3.12 with venv on PATH: install one (on Debian and Ubuntu also python3-venv)," \
    "or set MMRKD_PYTHON to the python of an existing environment."
}

is_ready() { [[ $(cat "$MARK" 2>/dev/null) == "$FINGERPRINT" ]] && "$VENV/bin/python" -c '' 2>/dev/null; }

pip_install() { # what it is, then pip's arguments
  local what=$1
  shift
  say "installing $what ..."
  "$VENV/bin/python" -m pip install --quiet --no-input --no-build-isolation "${LINKS[@]}" "$@" ||
    die "pip could not install $what (its message is above). Mend that and run this again."
}

start_afresh() {
  local free
  if [[ -n $(ls -A "$VENV") && ! -e $MARK ]]; then
    die "$VENV is not empty and was not made by this script: choose another MMRKD_ENV, or use it with MMRKD_PYTHON."
  fi
  echo building >"$MARK" # stays while the rest goes: a clean-up that is interrupted can be taken up again
  find -H "$VENV" -mindepth 1 -maxdepth 1 ! -path "$MARK" -exec rm -rf {} +
  free=$(df -Pk "$VENV" | awk 'NR == 2 {print int($4 / 1048576)}')
  ((free >= NEEDED_GB)) ||
    die "$VENV has $free GB free, $NEEDED_GB GB are needed: make room, or set MMRKD_ENV to a folder on another disk."
  export TMPDIR=$VENV/tmp # gigabytes, which a /tmp in memory does not hold and an interrupted pip would leave behind
  mkdir "$TMPDIR"
}

install_mmcv() {
  local pin only_wheels=(--no-input --no-deps --only-binary :all:)
  pin=$(grep '^onedl-mmcv==' "$REQ/stack.txt")
  if "$VENV/bin/python" -m pip install --quiet "${only_wheels[@]}" "${LINKS[@]}" "$pin" 2>/dev/null; then return; fi
  say "no prebuilt wheel of mmcv fits: it is compiled against the installed torch, about 7 to 10 minutes on two cores."
  command -v nvidia-smi >/dev/null || export FORCE_CUDA="${FORCE_CUDA:-0}"
  export MAX_JOBS="${MAX_JOBS:-$(env -u OMP_NUM_THREADS nproc)}"
  export PATH="$VENV/bin:$PATH" # torch looks for ninja there and compiles one file at a time without it
  pip_install 'mmcv (compiling)' --no-deps "$pin"
}

verify() {
  local py=$VENV/bin/python headless
  headless=$(grep '^opencv-python-headless==' "$REQ/stack.txt")
  if ! "$py" -c 'import cv2' 2>/dev/null; then
    # opencv-python and opencv-python-headless fill the same folder and the last one wins; only the first needs libGL.
    pip_install 'opencv without libGL' --force-reinstall --no-deps "$headless"
  fi
  "$py" -m pip check --quiet || die 'the installed packages do not fit each other (above).'
  "$py" -c 'import mmcv.ops' ||
    die "mmcv's operators do not load. If pip had cached an mmcv built against another torch:" \
      "$py -m pip cache remove onedl_mmcv, then run this again."
  "$py" -c "$IMPORTS
from mmcv.ops import get_compiling_cuda_version as cuda
if torch.cuda.is_available() and cuda() == 'not available':
    print('setup_env: warning: mmcv is built without CUDA operators: many detectors will not run on the GPU here.')" ||
    die "'$IMPORTS' fails (above)."
}

if [[ -n ${MMRKD_PYTHON:-} ]]; then
  use_existing "$MMRKD_PYTHON"
  exit
fi

unset PYTHONPATH PYTHONHOME # pip takes what lies on PYTHONPATH for installed
BASE=$(find_python)
FINGERPRINT=$({
  "$BASE" -c 'import sys; print(*sys.version_info[:2])'
  cat "$REQ"/{build,torch,stack,tests}.txt
} | sha256sum | cut -c 1-12)
VENV=${MMRKD_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/mmrkd/env-$FINGERPRINT}
mkdir -p "$VENV" || die "cannot create $VENV: set MMRKD_ENV to a folder that can be written."
VENV=$(cd "$VENV" >/dev/null && pwd)
MARK=$VENV/.mmrkd-env

if ! is_ready; then
  # The children inherit the lock: if this script is killed and its pip lives on, the next run waits for that pip.
  exec 9>"$VENV.lock"
  flock -n 9 || {
    say "another run is setting up $VENV: waiting for it ..."
    flock 9
  }
fi
if ! is_ready; then
  say "setting up $VENV with $BASE ($("$BASE" -V)) ..."
  LINKS=()
  if [[ -d $ROOT/../shared/wheels ]]; then LINKS=(--find-links "$ROOT/../shared/wheels"); fi
  start_afresh
  "$BASE" -m venv "$VENV" || die "$BASE could not make a virtual environment in $VENV."
  pip_install 'build tools' -r "$REQ/build.txt" # first: the setuptools of a fresh venv is too old for the stack
  pip_install 'torch (5 GB on disk)' -r "$REQ/torch.txt"
  install_mmcv
  pip_install 'the OpenMMLab stack' -r "$REQ/stack.txt"
  pip_install 'test tools' -r "$REQ/tests.txt"
  verify
  rm -rf "$TMPDIR"
  echo "$FINGERPRINT" >"$MARK" # last: only a finished environment carries its fingerprint
  say 'done.'
fi
echo "$VENV/bin/python" >&3
