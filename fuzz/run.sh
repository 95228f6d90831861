#!/usr/bin/env bash
# Runs every fuzz target for some seconds.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: fuzz/run.sh [SECONDS] [TARGET ...]

Builds the fuzz targets with coverage instrumentation and runs each, or the named ones, for SECONDS
(default 10). Works with stable Rust; with cargo-fuzz installed, `cargo fuzz run TARGET` does, too.
A finding is left in fuzz/artifacts/TARGET; what was learnt stays in fuzz/corpus/TARGET.
USAGE
}

case ${1:-} in
  -h | --help) usage && exit ;;
  -*) usage >&2 && exit 2 ;;
esac
seconds=${1:-10}
shift || true
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
  echo "fuzz/run.sh: SECONDS must be a whole number, not '$seconds'" >&2
  exit 2
fi
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(cookie token exchange configuration record subject)

cd "$(dirname -- "${BASH_SOURCE[0]}")"

# What cargo-fuzz passes, but for the sanitizers: those need a nightly compiler.
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1)
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and procedural macros stay without instrumentation.
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=target cargo build --release --locked --target "$host"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  corpora=("corpus/$target")
  [ ! -d "seeds/$target" ] || corpora+=("seeds/$target")
  if ! "target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix="artifacts/$target/" "${corpora[@]}" >"$log" 2>&1; then
    cat "$log"
    echo "fuzz/run.sh: $target failed; the input is in fuzz/artifacts/$target" >&2
    exit 1
  fi
  echo "-- $target: $(grep '^Done ' "$log"), no finding"
done
