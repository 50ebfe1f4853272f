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

read -ra hands <<<"$(scripts/fetch_hands.sh)"
for part in gnt:$writers:41 others:3:42; do
  IFS=: read -r folder count seed <<<"$part"
  if [ ! -d "$build/$folder" ]; then
    $python -m pipeline.sample --output "$build/$folder.partial" --writers "$count" --seed "$seed" "${hands[@]}"
    mv "$build/$folder.partial" "$build/$folder"
  fi
done
$python -m pipeline.convert --runner=DirectRunner --image_size 32 --output $build/shards \
  --input train=$build/gnt/train --input train=$build/gnt/test --input test=$build/others/train --input test=$build/others/test
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
