#!/usr/bin/env bash
# From a fresh clone to shards, and to a recogniser. Running it again is quick and harmless.
#
#   ./run_local.sh                            synthetic handwriting, drawn on the spot: shards, then a small training
#   ./run_local.sh train=PATH test=PATH       CASIA's archives: a .zip, a .gnt, a folder or a glob each, from where you are
#   ./run_local.sh test [pytest's flags]      sets up and runs every test
#
# It needs Python 3.11 to 3.13 (PYTHON=... names one) and writes to .venv, data and runs here, nowhere else.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_local.sh
set -euo pipefail
here=$PWD
script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do # the project is where the script lies, not where a link to it does
  link=$(readlink "$script")
  case "$link" in /*) script=$link ;; *) script=$(dirname "$script")/$link ;; esac
done
unset CDPATH # by which cd would look elsewhere first
cd -P -- "$(dirname "$script")"
venv=.venv/bin

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'run_local.sh: %s\n' "$*" >&2; exit 2; }

from_here() { # PATH: as the user meant it, who may stand elsewhere
  case "$1" in
    /* | *://* | "~"*) echo "$1" ;;
    *) echo "$here/$1" ;;
  esac
}

find_python() {
  local candidate candidates=(python3.13 python3.12 python3.11 python3)
  if [ -n "${PYTHON:-}" ]; then
    candidates=("$PYTHON")
    case "$PYTHON" in */*) candidates=("$(from_here "$PYTHON")") ;; esac
  fi
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "expected Python 3.11, 3.12 or 3.13 with venv, found none; install one, or name it: PYTHON=/path/to/python3.12 $0"
}

set_up() { # EXTRAS: the packages, in the versions of constraints.txt; skipped where they are in place
  local python stamp
  if [ ! -x $venv/python ]; then
    python=$(find_python)
    say "Making .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  stamp=$(cat pyproject.toml constraints.txt | cksum)" $1"
  if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then return; fi
  say "Installing $1 (some minutes and 2 GB the first time)"
  $venv/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$1]"
  if ! $venv/python -c 'import cv2' 2>/dev/null; then
    # opencv-python needs libGL, which a bare server lacks; the headless wheel is the same code without windows.
    local version
    version=$(sed -n 's/^opencv-python==//p' constraints.txt)
    say "import cv2 fails here, most likely for want of libGL: putting opencv-python-headless $version in its place"
    $venv/python -m pip uninstall --quiet --yes opencv-python
    $venv/python -m pip install --quiet --disable-pip-version-check "opencv-python-headless==$version"
    $venv/python -c 'import cv2'
  fi
  echo "$stamp" >.venv/stamp
}

run() { # MODULE FLAG...: shows the command, then runs it
  say "python -m $*"
  $venv/python -m "$@"
}

draw() { # FOLDER FLAG...: synthetic handwriting, unless it is there
  if [ -e "$1/complete" ]; then return; fi
  if [ -e "$1.unfinished" ]; then
    rm -rf "$1" # begun here, and interrupted
  elif [ -e "$1" ]; then
    fail "expected $PWD/$1 to be what this script drew, found something else; move it away"
  fi
  mkdir -p "$(dirname "$1")"
  touch "$1.unfinished"
  run pipeline.sample --output "$@"
  touch "$1/complete"
  rm "$1.unfinished"
}

convert() { # FOLDER FLAG...: converts into it, unless that is done
  if [ -e "$1/dataset.json" ]; then
    if [ -e "$1.flags" ] && [ "$(cat "$1.flags")" != "$*" ]; then
      fail "$PWD/$1 holds the data set of other input ($(cat "$1.flags")); delete it, or move it away"
    fi
    say "Converted already: $1 (delete the folder to convert again)"
    return
  fi
  run pipeline.convert --runner=DirectRunner --output "$@"
  echo "$*" >"$1.flags"
}

train() { # SHARDS RUN: begins with the recogniser in the box, half a minute on a laptop; one that was stopped goes on
  if [ -e "$2/report.html" ]; then
    say "Trained already: $2 (delete the folder to train again)"
    return
  fi
  run model.train --data "$1" --model_dir "$2" --init_from --epochs 4 --global_batch 64 --log_steps 20
}

inputs=()
case "${1:-}" in
  test)
    shift
    set_up sample,train,inspect,onnx,dev
    say "Running the tests"
    tests=()
    for argument in "$@"; do
      case "$argument" in
        -* | /*) ;;
        *) if [ -e "$here/${argument%%::*}" ]; then argument=$here/$argument; fi ;;
      esac
      tests+=("$argument")
    done
    exec $venv/python -m pytest ${tests[@]+"${tests[@]}"}
    ;;
  "") ;;
  *)
    for argument in "$@"; do
      case "$argument" in
        train= | test= | validation=) fail "expected a path after $argument, found none" ;;
        train=* | test=* | validation=*) inputs+=(--input "${argument%%=*}=$(from_here "${argument#*=}")") ;;
        *) fail "expected train=PATH, test=PATH or test, found $argument" ;;
      esac
    done
    ;;
esac

set_up sample,train,inspect

if [ ${#inputs[@]} -gt 0 ]; then
  convert data/hwdb "${inputs[@]}"
  run pipeline.inspect data/hwdb
  say "Next, on a machine with GPUs: .venv/bin/python -m model.train --data data/hwdb --model_dir runs/vgg19"
  exit
fi

say "Shards: 12 people write all 3,755 characters of GB2312 level 1"
draw data/sample --writers 12 --characters 3755
convert data/sample-shards --origin drawn --input train=data/sample/train --input test=data/sample/test
run pipeline.inspect data/sample-shards

say "The recogniser in the box knows all 3,754 characters"
run model.predict --records 25 data/sample/test/1241-c.gnt | tail -n 3

say "A recogniser of your own: 60 people write 50 characters, and the one in the box learns to read these"
draw data/few --writers 60 --characters 51
convert data/few-shards --origin drawn --image_size 32 --validation_fraction 0.2 \
  --input train=data/few/train --input test=data/few/test
train data/few-shards runs/few
run model.evaluate --model runs/few --data data/few-shards --split test
run model.predict --model runs/few --records 25 data/few/test/1243-c.gnt | tail -n 3
say "Open runs/few/report.html in a browser for the curves, the worst characters and a grid of predictions;
.venv/bin/hwdb draw shows a page to draw a character in"
