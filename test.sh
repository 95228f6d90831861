#!/usr/bin/env bash
# Everything that has to hold before a change lands.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/tools.sh"

usage() {
  cat <<'USAGE'
usage: ./test.sh [--quick | --docker | --advisories]

Installs what the tests need and runs all of them: formatting, lints for both targets, documentation, unit and
property tests, the gateway on a real memcached, the end-to-end tests on real Envoys, memcacheds and Tomcats, the
demo, the images and envoy/docker-compose.yaml on a Docker engine, the fuzz targets for some seconds, licences and
sources of the dependencies.

  --quick        only what needs neither Envoy nor Tomcat: formatting, lints, documentation, unit and property tests
  --docker       only the images and envoy/docker-compose.yaml, on a Docker engine of its own: scripts/docker-test.sh
  --advisories   only the dependencies' security advisories, which takes access to RustSec's database

FUZZ_SECONDS (default 10) is how long each fuzz target runs.
USAGE
}

quick=false
case ${1:-} in
  '') ;;
  --advisories)
    cd "$ROOT"
    need_cargo_deny
    exec "$CARGO_DENY" --locked --workspace check advisories
    ;;
  --docker) exec "$ROOT/scripts/docker-test.sh" ;;
  -h | --help) usage && exit ;;
  --quick) quick=true ;;
  *) usage >&2 && fail "unknown option $1" ;;
esac

cd "$ROOT"

need_rust
need_wasm_target
need_python
need_memcached
need_apt cc gcc libc6-dev
need_apt shellcheck shellcheck

export RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -Dwarnings"
wasm=(--target wasm32-wasip1 --package session-mesh --package noop-filter --package floor-filter)

timed "formatting" cargo fmt --all --check
timed "shell scripts" shellcheck -x ./*.sh scripts/*.sh fuzz/run.sh envoy/istio/secrets/*.sh .ci/run
timed "lints" cargo clippy --locked --workspace --all-targets -- -Dwarnings
timed "lints, wasm" cargo clippy --locked "${wasm[@]}" -- -Dwarnings
timed "documentation" cargo doc --locked --workspace --no-deps --document-private-items --quiet
timed "unit and property tests" cargo test --locked --workspace --exclude session-mesh-e2e
timed "tests of the bench" python3 -B -m unittest discover --quiet --start-directory bench
need_manifest_validators
timed "Kubernetes manifests" env PYTHONPATH="$MANIFEST_SCHEMAS" python3 -B -m unittest discover --quiet --start-directory tests/manifests
if $quick; then
  say "all green, without the end-to-end tests, in $SECONDS s"
  exit
fi

need_envoy
need_tomcat
need_jackson
need_php
need_lighttpd
need_chromium
need_node
need_express
need_django
need_pymemcache
need_cargo_deny
need_apt g++ g++

timed "licences and sources" "$CARGO_DENY" --locked --workspace check bans licenses sources
timed "building the filter" ./wasm-build.sh
timed "end-to-end tests" cargo test --locked --package session-mesh-e2e
timed "demo" ./demo.sh --check --port "${DEMO_PORT:-10000}"
timed "demo on memcached and Tomcat" ./demo.sh --memcached --tomcat --check --port "${DEMO_PORT:-10000}"
timed "images and docker-compose" scripts/docker-test.sh
timed "fuzzing" fuzz/run.sh "${FUZZ_SECONDS:-10}"
say "all green in $SECONDS s"
