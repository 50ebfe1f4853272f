#!/usr/bin/env bash
# Fetches Beam's engines, for the tests and for a try: each by its language's own client, in the version that is tested.
#
#   scripts/fetch_engines.sh [prism] [flink] [flink-job-server] [spark-job-server]     all of them, where none is named
#
# prism: built from its Go module (needs go).
# flink: Flink's jars, from PyPI (needs .venv).
# flink-job-server, spark-job-server: Beam's, from Maven Central (need mvn, java); Spark's holds Spark itself.
#
# They go to build/engines, or to the folder that HWDB_ENGINES names. What is there already isn't fetched again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${HWDB_ENGINES:-build/engines}
beam=$(sed -n 's/^apache-beam==//p' constraints.txt)
flink=1.20.5
flink_sha256=e6aee62ea1a1fe7b32e28894ad079f3f1a50a372a4caac3df52405267f4228c8
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
partial=$folder/partial.$$
trap 'rm -rf "$partial"' EXIT

fail() { printf 'fetch_engines.sh: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "expected $1 on the PATH to fetch $2, found none"; }

job_server() { # ARTIFACT FILE: a jar of Beam's version, with all it needs
  if [ -e "$folder/$2" ]; then return; fi
  need mvn "$2"
  need java "$2"
  mvn --batch-mode --quiet dependency:copy "-Dartifact=org.apache.beam:$1:$beam" "-DoutputDirectory=$partial" \
    >"$folder/mvn.log" 2>&1 || fail "Maven Central didn't give org.apache.beam:$1:$beam; $folder/mvn.log has the reason"
  mv "$partial/$1-$beam.jar" "$folder/$2"
}

fetch_prism() {
  if [ -x "$folder/prism" ]; then return; fi
  need go prism
  GOBIN=$partial go install "github.com/apache/beam/sdks/v2/go/cmd/prism@v$beam"
  mv "$partial/prism" "$folder/prism"
}

fetch_flink() {
  if [ -d "$folder/flink/lib" ]; then return; fi
  [ -x .venv/bin/python ] || fail "expected .venv to fetch Flink from PyPI, found none; ./run_local.sh makes it"
  echo "apache-flink-libraries==$flink --hash=sha256:$flink_sha256" >"$partial/flink.txt"
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --no-binary :all: \
    --no-build-isolation --dest "$partial" --requirement "$partial/flink.txt"
  tar -xzf "$partial/apache_flink_libraries-$flink.tar.gz" -C "$partial"
  mkdir -p "$folder/flink"
  mv "$partial/apache_flink_libraries-$flink/deps/lib" "$folder/flink/lib"
}

if [ $# -eq 0 ]; then set -- prism flink flink-job-server spark-job-server; fi
for engine in "$@"; do
  rm -rf "$partial"
  mkdir -p "$partial"
  case "$engine" in
    prism | flink) "fetch_$engine" ;;
    flink-job-server) job_server "beam-runners-flink-${flink%.*}-job-server" flink-job-server.jar ;;
    spark-job-server) job_server beam-runners-spark-3-job-server spark-job-server.jar ;;
    *) fail "expected prism, flink, flink-job-server or spark-job-server, found $engine" ;;
  esac
  echo "$engine: $folder"
done
