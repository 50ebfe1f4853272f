#!/usr/bin/env bash
# Makes a recogniser for the box: draws handwriting, converts it, trains on it, calibrates, packs. Real pixels have no
# part in it, so the weights can be given away. docs/recipe-box.md has what came of it.
#
#   scripts/recogniser.sh [WRITERS] [STEPS]     in build/recogniser; what is there already isn't made again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
writers=${1:-60} steps=${2:-16000}
build=build/recogniser
python=.venv/bin/python
size=32
mkdir -p $build

read -ra hands <<<"$(scripts/fetch_hands.sh)"
if [ ! -d $build/gnt ]; then
  $python -m pipeline.sample --output $build/gnt --writers "$writers" --seed 11 "${hands[@]}"
  $python -m pipeline.sample --output $build/others --writers 2 --seed 12 "${hands[@]}"
fi
$python -m pipeline.convert --runner=DirectRunner --image_size $size --output $build/shards \
  --input train=$build/gnt/train --input train=$build/gnt/test --input test=$build/others/train --input test=$build/others/test
$python -m model.train --data $build/shards --model_dir $build/run --arch vgg11 --width 0.375 --dropout 0.1 \
  --augment light --outliers 0.05 --ema 0.998 --global_batch 64 --learning_rate 0.003 --steps "$steps" --seed 0
$python -m model.evaluate --model $build/run --data $build/shards --split test --calibrate
$python -c "
import sys
from pathlib import Path
from model.answers.compact import pack
from model.answers.run import load_model, read_run
run = read_run(Path(sys.argv[1]))
print(f'{pack(run, load_model(run), Path(sys.argv[2])):,} bytes in {sys.argv[2]}')
" $build/run $build/packed
