#!/usr/bin/env bash
# Makes the pictures of the README from the running demo.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tools.sh"

usage() {
  cat <<'USAGE'
usage: scripts/screenshots.sh [FOLDER]

Runs ./demo.sh, visits its page twice with one headless Chromium, and leaves red.png and blue.png in FOLDER
(default docs/images). Fails if the two pages do not show one session id.
USAGE
}

case ${1:-} in
  -h | --help) usage && exit ;;
  -*) usage >&2 && exit 2 ;;
esac
folder=${1:-$ROOT/docs/images}
port=${DEMO_PORT:-10000}

need_python
need_chromium
log=$(mktemp)
"$ROOT/demo.sh" --port "$port" >"$log" 2>&1 &
demo=$!
trap 'kill "$demo" 2>/dev/null; wait "$demo" 2>/dev/null || true; rm -f "$log"' EXIT
until grep --quiet "http://127.0.0.1:$port/" "$log"; do
  kill -0 "$demo" 2>/dev/null || { cat "$log" >&2 && fail "the demo did not start"; }
  sleep 0.2
done
mkdir -p "$folder"
python3 "$ROOT/scripts/screenshots.py" "http://127.0.0.1:$port/" "$folder"
