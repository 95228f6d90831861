#!/usr/bin/env bash
# Builds a wasm filter for Envoy and leaves it in dist/.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/tools.sh"

usage() {
  cat <<'USAGE'
usage: ./wasm-build.sh [PACKAGE]

Builds PACKAGE (default: session-mesh) for wasm32-wasip1, checks that the module imports only what
Envoy offers, leaves it at dist/<package>.wasm and prints its path and size in bytes.
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
need_python

cargo build --locked --release --target wasm32-wasip1 --package "$package"
built=$(target_folder)/wasm32-wasip1/release/$module
python3 scripts/check_wasm_imports.py "$built"

# Renamed into place, so that nobody ever loads half a module; left alone when nothing changed, so
# that its time stamp tells whether Envoy has the current one.
mkdir -p dist
if ! cmp -s "$built" "dist/$module"; then
  partial=$(mktemp "dist/.$module.XXXXXX")
  cp "$built" "$partial"
  chmod 644 "$partial"
  mv "$partial" "dist/$module"
fi
echo "dist/$module $(stat -c %s "dist/$module")"
