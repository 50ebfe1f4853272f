#!/usr/bin/env bash
# From a fresh clone to shards you can look at. Running it again is quick and harmless.
#
#   ./run_local.sh                            synthetic handwriting, drawn on the spot
#   ./run_local.sh train=PATH test=PATH       CASIA's archives: a .zip, a .gnt, a folder or a glob each
#   ./run_local.sh test [pytest's flags]      sets up and runs every test
#
# It needs Python 3.11 to 3.13 (PYTHON=... names one) and writes to .venv and data here, nowhere else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=.venv/bin

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'run_local.sh: %s\n' "$*" >&2; exit 2; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
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

convert() { # OUTPUT FLAG...: converts unless that is done
  local output=$1
  shift
  if [ -e "$output/dataset.json" ]; then
    say "Converted already: $output (delete the folder to convert again)"
    return
  fi
  say "python -m pipeline.convert --runner=DirectRunner $* --output $output"
  $venv/python -m pipeline.convert --runner=DirectRunner "$@" --output "$output"
}

show_manifest() { # OUTPUT
  say "What became of every record: $1/manifest"
  $venv/python - "$1" <<'PY'
import sys

import duckdb

manifest = f"{sys.argv[1]}/manifest/*.parquet"
print(duckdb.sql(f"SELECT split, status, reason, count(*) AS records FROM '{manifest}' GROUP BY ALL ORDER BY ALL"))
print(duckdb.sql(f"SELECT sample_id, status, char, writer, source_offset, shard, shard_offset FROM '{manifest}' LIMIT 5"))
PY
}

inputs=()
case "${1:-}" in
  test)
    shift
    set_up sample,train,inspect,onnx,dev
    say "Running the tests"
    exec $venv/python -m pytest "$@"
    ;;
  "") ;;
  *)
    for argument in "$@"; do
      case "$argument" in
        train=* | test=* | validation=*) inputs+=(--input "$argument") ;;
        *) fail "expected train=PATH, test=PATH or test, found $argument" ;;
      esac
    done
    ;;
esac

set_up sample,train,inspect
if [ ${#inputs[@]} -gt 0 ]; then
  output=data/hwdb
  convert $output "${inputs[@]}"
else
  output=data/sample-shards
  if [ ! -e data/sample/test ]; then
    say "python -m pipeline.sample --output data/sample"
    rm -rf data/sample
    $venv/python -m pipeline.sample --output data/sample
  fi
  convert $output --input train=data/sample/train --input test=data/sample/test
fi
show_manifest $output
