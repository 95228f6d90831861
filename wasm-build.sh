#!/usr/bin/env bash
# Builds a wasm filter for Envoy and leaves it in dist/.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/tools.sh"

usage() {
  cat <<'USAGE'
usage: ./wasm-build.sh [PACKAGE]

Builds PACKAGE (default: session-mesh) for wasm32-wasip1, checks that the module imports only what
Envoy offers, leaves out the callbacks that it does nothing in, puts it at dist/<package>.wasm and
prints its path and size in bytes.
Adds Rust's wasm32-wasip1 target if it is missing.
USAGE
}

case ${1:-} in
  -h | --help) usage && exit ;;
  -*) usage >&2 && exit 2 ;;
esac
package=${1:-session-mesh}
module=${package//-/_}.wasm

cd "$ROOT"
need_wasm_target

# The callbacks in which a filter does something. The SDK exports every callback, and Envoy makes all of them. The
# bench's do-nothing filter keeps them all, because it shows what any filter costs.
callbacks=()
case $package in
  session-mesh)
    callbacks=(
      proxy_on_context_create proxy_on_configure proxy_on_tick proxy_on_delete
      proxy_on_request_headers proxy_on_request_trailers
      proxy_on_response_headers proxy_on_response_trailers
      proxy_on_http_call_response
    )
    ;;
  floor-filter)
    callbacks=(
      proxy_on_context_create proxy_on_configure proxy_on_delete proxy_on_request_headers proxy_on_response_headers
    )
    ;;
esac

cargo build --locked --release --target wasm32-wasip1 --package "$package"
built=$(target_folder)/wasm32-wasip1/release/$module
trimmed=$built.trimmed
cargo run --locked --quiet --package wasm-trim -- "$built" "$trimmed" "${callbacks[@]}"

# Renamed into place, so that no process ever loads half a module. Left alone if nothing has changed, so
# that its time stamp tells whether Envoy has the current one.
mkdir -p dist
if ! cmp -s "$trimmed" "dist/$module"; then
  partial=$(mktemp "dist/.$module.XXXXXX")
  cp "$trimmed" "$partial"
  chmod 644 "$partial"
  mv "$partial" "dist/$module"
fi
size=$(stat -c %s "dist/$module")
echo "dist/$module $size"
# Every Envoy loads it, and every worker compiles it: what makes it larger has to be worth it.
if ((size > 560000)); then
  echo "dist/$module has more than 560000 bytes: make it smaller, or raise the limit in wasm-build.sh" >&2
  exit 1
fi
