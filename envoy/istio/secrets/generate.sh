#!/usr/bin/env bash
# Generates the two secrets that the kustomizations of this folder read, unless they exist:
#
#   gateway-token/gateway-token.env       the bearer token of the gateway, for the gateway and for the proxies
#   session-secrets/session-secrets.env   the key that signs the clients' tokens, for the proxies only
#
# Git ignores both. Keep them where you keep your secrets, or replace these two kustomizations with your cluster's
# source of Secrets: the manifests need Secrets of these names, with these keys.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
umask 077

# make VARIABLE FILE: 32 random bytes, as base64, in the notation of a .env file.
make() {
  if [[ -e $2 ]]; then
    echo "$2 is there, and stays as it is"
  else
    printf '%s=%s\n' "$1" "$(openssl rand -base64 32)" >"$2"
    echo "$2 made"
  fi
}

make SESSION_GATEWAY_TOKEN gateway-token/gateway-token.env
make SESSION_SECRETS session-secrets/session-secrets.env
