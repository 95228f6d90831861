#!/usr/bin/env bash
# Runs a command beside a Docker engine of its own: docker-engine.sh COMMAND...   (as root)
#
# The engine lives in namespaces of its own (processes, mounts, network). So it doesn't meet an engine that runs on
# this machine, its images or its firewall rules, published ports are seen by the command only, and all of it is gone
# when the command ends, however that is. Images and layers stay in .tools/docker/ for the next time.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tools.sh"

readonly DATA=$TOOLS/docker
# How long the kernel, the network or the engine may take.
readonly PATIENCE=60

# awaited COMMAND...: whether the command succeeds in time.
awaited() {
  local end=$((SECONDS + PATIENCE))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

if [[ ${1:-} != --inside ]]; then
  [[ $# -gt 0 && $1 != -* ]] || fail "usage: scripts/docker-engine.sh COMMAND..."
  [[ $(id -u) == 0 ]] || fail "a Docker engine needs root"
  mkdir -p "$DATA"
  exec {lock}>"$DATA/lock"
  flock --nonblock "$lock" || fail "another Docker engine is at work in $DATA: wait until its test is done"

  # Not in .tools/: the path of a socket must be short.
  run=$(mktemp -d)
  started=()
  # shellcheck disable=SC2317 # the traps call it
  stop() {
    trap - EXIT INT TERM
    # unshare is deaf to other signals; --kill-child makes this one that of the namespace's first process, too.
    [[ ${#started[@]} -eq 0 ]] || kill -s KILL "${started[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$run"
  }
  trap stop EXIT
  trap 'stop; exit 130' INT TERM

  unshare --net --mount --pid --fork --mount-proc --kill-child "${BASH_SOURCE[0]}" --inside "$run" "$@" &
  inside=$!
  started+=("$inside")
  # Once the inside runs, the network of the process that was just started is surely not this machine's.
  awaited test -e "$run/inside" || fail "this machine gives no namespaces to a Docker engine"
  # The way out: a program that opens the connections itself, so no rule or route of this machine changes.
  slirp4netns --configure --disable-host-loopback --netns-type=path "/proc/$inside/ns/net" tap0 \
    >"$run/network.log" 2>&1 &
  started+=($!)
  status=0
  wait "$inside" || status=$?
  exit "$status"
fi

run=$2
shift 2
touch "$run/inside"
ip link set lo up
awaited ip link show tap0 || fail "no network for the Docker engine: $(tail -n 3 "$run/network.log")"

export DOCKER_HOST=unix://$run/docker.sock DOCKER_RUN=$run
# 10.0.2.3 asks this machine's resolvers, wherever they are. The cgroups are made without systemd, which isn't in here.
dockerd --host "$DOCKER_HOST" --data-root "$DATA/data" --exec-root "$run/exec" --pidfile "$run/dockerd.pid" \
  --dns 10.0.2.3 --exec-opt native.cgroupdriver=cgroupfs >"$run/dockerd.log" 2>&1 &
engine=$!
awaited docker info || {
  tail -n 20 "$run/dockerd.log" >&2
  fail "the Docker engine did not start (its log is above)"
}
# Containers that a run which was killed has left: the engine starts them again.
mapfile -t left < <(docker ps --all --quiet)
[[ ${#left[@]} -eq 0 ]] || docker rm --force "${left[@]}" >/dev/null

status=0
"$@" || status=$?
kill "$engine"
wait "$engine" || true
exit "$status"
