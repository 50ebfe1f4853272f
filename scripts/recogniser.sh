#!/usr/bin/env bash
# Makes the recogniser in the box: draws handwriting, converts it, trains on it, calibrates, packs. Real pixels have no
# part in it, so the weights can be given away. docs/recipe-box.md has what came of it.
#
#   scripts/recogniser.sh [WRITERS] [STEPS]     in build/recogniser; what is there already isn't made again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
writers=${1:-250} steps=${2:-15000}
build=build/recogniser
python=.venv/bin/python
mkdir -p $build

draw() { # FOLDER WRITERS SEED HANDS...
  if [ -d "$build/$1" ]; then return; fi
  mkdir -p "$build/$(dirname "$1")"
  $python -m pipeline.sample --output "$build/$1.partial" --writers "$2" --seed "$3" "${@:4}"
  mv "$build/$1.partial" "$build/$1"
}

read -ra hands <<<"$(scripts/fetch_hands.sh)"
draw gnt "$writers" 41 "${hands[@]}"
draw aside/others 3 42 "${hands[@]}"
# Real hands are others than those it learnt from: so is the half that tells how sure it may be.
neat=${HWDB_HANDS:-build/hands}/zcool-kuaile/files/zcool-kuaile-chinese-simplified-400-normal.woff
printed=$($python -c "from pipeline.sample.glyphs import font_path; print(font_path())")
draw aside/unlearnt 6 43 --font "$neat" --font "$printed"
$python -m pipeline.convert --runner=DirectRunner --image_size 32 --output $build/shards \
  --input train=$build/gnt/train --input train=$build/gnt/test --input test=$build/aside
$python -m model.train --data $build/shards --model_dir $build/run --arch vgg11 --width 0.5 --dropout 0.1 \
  --augment drawn --outliers 0.04 --ema 0.998 --global_batch 256 --learning_rate 0.004 --steps "$steps" --seed 0
$python -m model.evaluate --model $build/run --data $build/shards --split test --calibrate
$python -c "
import sys
from pathlib import Path
from model.answers.compact import pack
from model.answers.run import load_model, read_run
run = read_run(Path(sys.argv[1]))
print(f'{pack(run, load_model(run), Path(sys.argv[2])):,} bytes in {sys.argv[2]}')
" $build/run $build/packed
