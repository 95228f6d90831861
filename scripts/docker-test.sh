#!/usr/bin/env bash
# Runs envoy/docker-compose.yaml on a Docker engine of its own, and tests/docker against it.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tools.sh"

usage() {
  cat <<'USAGE'
usage: scripts/docker-test.sh [TEST...]

Builds the images, brings envoy/docker-compose.yaml up and uses it as a browser would, while it kills and restarts
one container after another. TEST is a name as Python's unittest takes it, such as test_images or
test_failures.OneContainerDies (default: all).

DOCKER_TEST_IMAGES=stand-in (default) makes images under the names of the official ones, from Debian's packages and
this machine's Rust and Envoy, so that no container registry is needed; =official pulls the official ones.
DOCKER_TEST_COMPOSE=1 (default) runs Debian's docker-compose, =2 the newer one from PyPI.
USAGE
}

case ${1:-} in
  -h | --help) usage && exit ;;
esac
images=${DOCKER_TEST_IMAGES:-stand-in}
[[ $images == stand-in || $images == official ]] ||
  fail "\$DOCKER_TEST_IMAGES is $images, which is neither stand-in nor official"

compose=${DOCKER_TEST_COMPOSE:-1}
[[ $compose == 1 || $compose == 2 ]] || fail "\$DOCKER_TEST_COMPOSE is $compose, which is neither 1 nor 2"

cd "$ROOT"
need_docker
need_compose_2
need_python
need_envoy
toolchain='' rustup='' debian=''
if [[ $images == stand-in ]]; then
  need_rust
  toolchain=$(rustc --print sysroot)
  rustup=$(command -v rustup) || fail "rustup is missing, which the images are built with: see https://rustup.rs"
  need_debian_base
  debian=$DEBIAN_BASE
fi

# The engine needs root; of this user's environment it needs nothing.
as_root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
  DOCKER_TEST_COMPOSE="$compose" DOCKER_TEST_COMPOSE_2="$COMPOSE_2" DOCKER_TEST_IMAGES="$images" \
  DOCKER_TEST_DEBIAN="$debian" DOCKER_TEST_ENVOY="$ENVOY" \
  DOCKER_TEST_TOOLCHAIN="$toolchain" DOCKER_TEST_RUSTUP="$rustup" \
  scripts/docker-engine.sh scripts/docker-suite.sh "$@"
