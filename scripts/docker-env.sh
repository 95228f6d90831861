#!/usr/bin/env bash
# Writes what envoy/docker-compose.yaml needs to envoy/.env, with fresh secrets: docker-env.sh [FILE]
#
# FILE is another file instead, for docker-compose's --env-file. A file that is there already stays as it is.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
file=${1:-$root/envoy/.env}

if [[ -e $file ]]; then
  echo "$file is there already: it stays as it is" >&2
  exit 1
fi

secret() {
  head -c 32 /dev/urandom | base64 --wrap=0
}

# For its owner only, from the first byte on; and never half of it.
umask 077
partial=$(mktemp "$file.XXXXXX")
trap 'rm -f "$partial"' EXIT
while IFS= read -r line; do
  case $line in
    SESSION_SECRETS= | SESSION_GATEWAY_TOKEN=) printf '%s%s\n' "$line" "$(secret)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <"$root/envoy/.env.example" >"$partial"
mv --no-clobber "$partial" "$file"
echo "$file is written, with fresh secrets" >&2
