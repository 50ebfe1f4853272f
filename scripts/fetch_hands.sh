#!/usr/bin/env bash
# Fetches strokes and fonts that `hwdb sample --strokes DIR --font FILE` can draw with, by npm, in fixed versions.
#
#   scripts/fetch_hands.sh         prints the flags
#
# hanzi-writer-data: strokes in the order of writing, from Make Me a Hanzi (Arphic Public License).
# Ma Shan Zheng, Zhi Mang Xing, Long Cang: running and brush hands (SIL Open Font License 1.1).
#
# They go to build/hands, or to the folder that HWDB_HANDS names, their licences beside them. What is there already isn't
# fetched again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${HWDB_HANDS:-build/hands}
strokes=hanzi-writer-data@2.0.1
fonts=(ma-shan-zheng@5.3.1 zhi-mang-xing@5.3.0 long-cang@5.3.0)
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

fetch "$strokes" "${strokes%@*}"
flags=(--strokes "$folder/${strokes%@*}")
for font in "${fonts[@]}"; do
  name=${font%@*}
  fetch "@fontsource/$font" "$name"
  flags+=(--font "$folder/$name/files/$name-chinese-simplified-400-normal.woff")
done
printf '%s\n' "${flags[*]}"
