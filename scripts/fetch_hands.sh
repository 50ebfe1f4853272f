#!/usr/bin/env bash
# Fetches strokes and fonts that `hwdb sample --strokes DIR --font FILE` can draw with, by npm, in fixed versions.
#
#   scripts/fetch_hands.sh         prints the flags
#
# hanzi-writer-data: strokes in the order of writing, from Make Me a Hanzi (Arphic Public License).
# Fonts (SIL Open Font License 1.1): Ma Shan Zheng, Zhi Mang Xing, Long Cang are running and brush hands; Xiaolai is a plain
# one, cut into pieces in the package of Excalidraw; Yomogi, Zen Kurenaido, Klee One, Yusei Magic are Japanese hands, which
# have 2,370 of the 3,754 characters. ZCOOL KuaiLe is fetched, and not among the flags: a hand to calibrate on is one that
# was not learnt from.
#
# They go to build/hands, or to the folder that HWDB_HANDS names, their licences beside them. What is there already isn't
# fetched again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${HWDB_HANDS:-build/hands}
strokes=hanzi-writer-data@2.0.1
chinese=(ma-shan-zheng@5.3.1 zhi-mang-xing@5.3.0 long-cang@5.3.0)
japanese=(yomogi@5.3.0 zen-kurenaido@5.3.0 klee-one@5.3.0 yusei-magic@5.3.0)
unlearnt=zcool-kuaile@5.3.0
pieces=@excalidraw/excalidraw@0.18.1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
partial=$folder/partial.$$
trap 'rm -rf "$partial"' EXIT

fail() { printf 'fetch_hands.sh: %s\n' "$*" >&2; exit 1; }

fetch() { # PACKAGE@VERSION NAME
  if [ -d "$folder/$2" ]; then return; fi
  command -v npm >/dev/null || fail "expected npm on the PATH to fetch $1, found none"
  mkdir -p "$partial"
  (cd "$partial" && npm pack --silent "$1" >/dev/null) || fail "npm didn't give $1"
  tar -xzf "$partial"/*.tgz -C "$partial"
  mv "$partial/package" "$folder/$2"
  rm -rf "$partial"
}

join() { # FOLDER OF PIECES, FONT
  if [ -f "$2" ]; then return; fi
  mkdir -p "$partial"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --target "$partial/brotli" brotli==1.2.1 ||
    fail "pip didn't give brotli, which opens $1"
  PYTHONPATH=$partial/brotli .venv/bin/python scripts/join_font.py "$1" "$partial/joined.ttf"
  mv "$partial/joined.ttf" "$2"
  rm -rf "$partial"
}

fetch "$strokes" "${strokes%@*}"
flags=(--strokes "$folder/${strokes%@*}")
fontsource() { # SUBSET FONT@VERSION ...
  local subset=$1 font name
  shift
  for font in "$@"; do
    name=${font%@*}
    fetch "@fontsource/$font" "$name"
    flags+=(--font "$folder/$name/files/$name-$subset-400-normal.woff")
  done
}
fontsource chinese-simplified "${chinese[@]}"
fetch "$pieces" excalidraw
join "$folder/excalidraw/dist/prod/fonts/Xiaolai" "$folder/xiaolai.ttf"
flags+=(--font "$folder/xiaolai.ttf")
fontsource japanese "${japanese[@]}"
fetch "@fontsource/$unlearnt" "${unlearnt%@*}"
printf '%s\n' "${flags[*]}"
