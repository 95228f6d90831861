#!/usr/bin/env bash
# The part of scripts/docker-test.sh beside the engine: makes the images, then runs tests/docker.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tools.sh"
cd "$ROOT"

# made_from IMAGE: what the stand-in of that name was made from, if there is one.
made_from() {
  docker image inspect --format '{{index .Config.Labels "session-mesh.stand-in"}}' "$1" 2>/dev/null || true
}

# stand_in IMAGE FOLDER VERSION [OPTION...]: makes the image from tests/docker/stand-ins/FOLDER, unless it is there
# already, from the same files and the same VERSION of what is put into it.
stand_in() {
  local image=$1 folder=$2 version=$3 context=$DOCKER_RUN/$2 origin
  shift 3
  [[ -d $context ]] || mkdir "$context"
  cp -r "tests/docker/stand-ins/$folder/." "$context"
  origin=$({ find "tests/docker/stand-ins/$folder" -type f -exec sha256sum {} + | sort && echo "$version"; } |
    sha256sum | cut -c 1-16)
  [[ $(made_from "$image") != "$origin" ]] || return 0
  timed "making a stand-in for $image" \
    docker build --quiet --label "session-mesh.stand-in=$origin" --tag "$image" "$@" "$context" >&2
}

# put FILE_OR_FOLDER FOLDER/NAME: shows it to the build in FOLDER under that name, without copying it. The mount ends
# with the namespace that this runs in.
put() {
  local target=$DOCKER_RUN/$2
  mkdir -p "$(dirname "$target")"
  if [[ -d $1 ]]; then mkdir -p "$target"; else touch "$target"; fi
  mount --bind "$1" "$target"
}

make_stand_ins() {
  local version
  version=$(sha256sum "$DOCKER_TEST_DEBIAN" | cut -c 1-16)
  if [[ $(made_from debian:bookworm-slim) != "$version" ]]; then
    timed "making a stand-in for debian:bookworm-slim" \
      docker import --change "LABEL session-mesh.stand-in=$version" "$DOCKER_TEST_DEBIAN" debian:bookworm-slim >&2
  fi
  put "$DOCKER_TEST_ENVOY" envoy/envoy
  put "$DOCKER_TEST_TOOLCHAIN" rust/toolchain
  put "$DOCKER_TEST_RUSTUP" rust/rustup
  put /etc/ssl/certs/ca-certificates.crt rust/ca-certificates.crt
  # At the same time: they wait for downloads most of it.
  local makers=() maker
  stand_in "rust:$RUST_VERSION-slim-bookworm" rust "$version $("$DOCKER_TEST_TOOLCHAIN/bin/rustc" --version)" \
    --build-arg "TOOLCHAIN=$(basename "$DOCKER_TEST_TOOLCHAIN")" &
  makers+=($!)
  stand_in tomcat:10.1-jre17 tomcat "$version" &
  makers+=($!)
  stand_in memcached:1.6 memcached "$version" &
  makers+=($!)
  stand_in python:3.11-slim python "$version" &
  makers+=($!)
  stand_in "envoyproxy/envoy:v$ENVOY_VERSION" envoy "$version $("$DOCKER_TEST_ENVOY" --version)" &
  makers+=($!)
  for maker in "${makers[@]}"; do wait "$maker"; done
}

# What Cargo.toml asks for, without a patch level.
RUST_VERSION=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

if [[ $DOCKER_TEST_IMAGES == official ]]; then
  # Also where there is a stand-in of that name.
  for image in memcached:1.6 python:3.11-slim tomcat:10.1-jre17 "envoyproxy/envoy:v$ENVOY_VERSION" \
    "rust:$RUST_VERSION-slim-bookworm"; do
    timed "pulling $image" docker pull --quiet "$image" >&2
  done
else
  make_stand_ins
fi
# The builds of earlier versions, a week old.
docker image prune --force --filter until=168h >/dev/null

export PYTHONDONTWRITEBYTECODE=1
cd tests/docker
if [[ $# -gt 0 ]]; then
  python3 -m unittest --verbose "$@"
else
  python3 -m unittest discover --verbose
fi
