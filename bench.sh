#!/usr/bin/env bash
# Measures what the session filter costs in Envoy: builds and installs what that needs, then runs bench/bench.py.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/tools.sh"

need_python
# -B: no compiled copies beside the sources.
bench=(python3 -B "$ROOT/bench/bench.py")
for argument; do
  case $argument in
    -h | --help) exec "${bench[@]}" --help ;;
  esac
done

need_envoy
need_memcached
need_apt wrk wrk
need_apt h2load nghttp2-client
timed "building the filter" "$ROOT/wasm-build.sh" >&2
timed "building the do-nothing filter" "$ROOT/wasm-build.sh" noop-filter >&2
timed "building the floor filter" "$ROOT/wasm-build.sh" floor-filter >&2
timed "building the gateway" \
  cargo build --locked --release --package session-gateway --manifest-path "$ROOT/Cargo.toml" >&2

exec "${bench[@]}" \
  --envoy "$ENVOY" \
  --gateway "$(target_folder)/release/session-gateway" \
  --memcached "$(command -v memcached)" \
  --session-mesh-wasm "$ROOT/dist/session_mesh.wasm" \
  --noop-wasm "$ROOT/dist/noop_filter.wasm" \
  --floor-wasm "$ROOT/dist/floor_filter.wasm" \
  "$@"
