#!/usr/bin/env bash
# Measures how much memory sessions take, in memcached and in Envoy: the tables of docs/deploy/sizing.md.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tools.sh"

usage() {
  cat <<'USAGE'
usage: scripts/sizing.sh

Builds the filter and the gateway, fills a memcached and the cache of an Envoy with sessions of several sizes, and prints
what each takes, as the tables of docs/deploy/sizing.md. Takes about a minute and 300 MB of memory, and the building.
USAGE
}

case ${1:-} in
  '') ;;
  -h | --help) usage && exit ;;
  *) usage >&2 && fail "unknown option $1" ;;
esac

cd "$ROOT"
need_rust
need_python
need_memcached
need_envoy

timed "building the filter" ./wasm-build.sh >&2
timed "building the gateway" cargo build --locked --release --package session-gateway
gateway=$(target_folder)/release/session-gateway
exec python3 -B scripts/measure_sizing.py --envoy "$ENVOY" --gateway "$gateway" --filter dist/session_mesh.wasm
