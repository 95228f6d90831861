#!/usr/bin/env bash
# The classic shared session, to look at: two applications, one Envoy, one session.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/tools.sh"

usage() {
  cat <<'USAGE'
usage: ./demo.sh [--memcached] [--tomcat] [--check] [--port PORT]

Installs and builds what it needs, starts a session gateway, two small applications (a red and a blue page) and Envoy
with the session filter, prints the address to open, and runs until Ctrl-C.

  --memcached   keep sessions in a real memcached instead of the gateway's memory
  --tomcat      run two stock Tomcat 10s with a JSP page instead of the small applications
  --check       visit the page with a cookie jar and exit: 0 if every visit had the same session, else 1
  --port PORT   the port Envoy listens on at 127.0.0.1 (default 10000, or $DEMO_PORT); everything else takes free ports
USAGE
}

memcached=false tomcat=false check=false port=${DEMO_PORT:-10000}
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage && exit ;;
    --memcached) memcached=true ;;
    --tomcat) tomcat=true ;;
    --check) check=true ;;
    --port)
      [[ $# -ge 2 ]] || fail "--port needs a number"
      port=$2
      shift
      ;;
    *)
      usage >&2
      fail "unknown option $1"
      ;;
  esac
  shift
done

cd "$ROOT"
need_free_port "$port" --port
need_rust
need_python
need_envoy
if $memcached; then need_memcached; fi
if $tomcat; then need_tomcat; fi
timed "building the filter" ./wasm-build.sh >/dev/null
# Unoptimized: this builds in half the time and is fast enough for a demo.
timed "building the gateway" cargo build --locked --package session-gateway
gateway=$(target_folder)/debug/session-gateway

# Free ports, all different: all are held open until the last one is known.
free_ports() {
  python3 - "$1" <<'PYTHON'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(server.getsockname()[1] for server in held))
PYTHON
}
read -r red blue api admin store envoy_admin <<<"$(free_ports 6)"

folder=$(mktemp -d)
started=()
# shellcheck disable=SC2317 # the traps call it
stop() {
  trap - EXIT INT TERM
  [[ ${#started[@]} -eq 0 ]] || kill "${started[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap stop EXIT
trap 'stop; exit 130' INT TERM

# start NAME COMMAND...: runs a process in the background; its output goes to a log of its own.
start() {
  local name=$1
  shift
  "$@" >"$folder/$name.log" 2>&1 &
  started+=($!)
}

# await NAME PORT: waits until the process that was started last listens on the port.
await() {
  local name=$1 port=$2 pid=${started[-1]} left=600
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null || [[ $((left -= 1)) -eq 0 ]]; then
      tail -n 30 "$folder/$name.log" >&2
      fail "$name did not start (its log is above)"
    fi
    sleep 0.1
  done
}

# Secrets of this run only.
SESSION_SECRETS=$(head -c 32 /dev/urandom | base64)
SESSION_GATEWAY_TOKEN=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
export SESSION_SECRETS SESSION_GATEWAY_TOKEN

store_url=memory:
if $memcached; then
  user=()
  # memcached refuses to run as root unless it is told which user to become.
  [[ $(id -u) != 0 ]] || user=(-u nobody)
  start memcached memcached -l 127.0.0.1 -p "$store" "${user[@]}"
  await memcached "$store"
  store_url=memcached://127.0.0.1:$store
fi
start gateway "$gateway" --listen "127.0.0.1:$api" --admin-listen "127.0.0.1:$admin" --store "$store_url"
await gateway "$api"

for colour in red blue; do
  if $tomcat; then
    mkdir "$folder/$colour"
    start "$colour" scripts/tomcat.sh "${!colour}" "$colour" "$folder/$colour"
  else
    start "$colour" python3 demo/upstream.py --port "${!colour}" --colour "$colour"
  fi
  await "$colour" "${!colour}"
done

# change TEXT BY: replaces a text in the configuration, and fails if it isn't there.
configuration=$(<envoy/envoy.yaml)
change() {
  [[ $configuration == *"$1"* ]] || fail "envoy/envoy.yaml does not contain '$1' any more: update demo.sh"
  configuration=${configuration//"$1"/"$2"}
}
change 'address: 0.0.0.0, port_value: 10000' "address: 127.0.0.1, port_value: $port"
change 'port_value: 9901' "port_value: $envoy_admin"
change 'port_value: 9100' "port_value: $api"
change 'port_value: 8081' "port_value: $red"
change 'port_value: 8082' "port_value: $blue"
change 'port_value: 8083' "port_value: $blue"
# The demo has no https, and browsers accept a __Host- cookie over https only.
change 'cookie: { name: __Host-session, secure: true }' 'cookie: { name: session, secure: false }'
if $tomcat; then
  # Tomcat keeps its own state under the session's id, so the session must exist from the first request on.
  change 'create: lazy' 'create: eager
                            upstream: { cookie: JSESSIONID }'
fi
printf '%s\n' "$configuration" >"$folder/envoy.yaml"
start envoy "$ENVOY" -c "$folder/envoy.yaml" --concurrency 1 --disable-hot-restart --log-level warn
await envoy "$port"

url=http://127.0.0.1:$port/
if $check; then
  counts=(--counts)
  if $tomcat; then counts=(); fi
  python3 demo/check.py "$url" "${counts[@]}"
  exit
fi

say "open $url and reload: the page alternates between red and blue, the session stays the same"
say "Envoy's admin page: http://127.0.0.1:$envoy_admin/, the gateway's metrics: http://127.0.0.1:$admin/metrics"
say "Ctrl-C stops everything"
wait -n "${started[@]}" || true
for name in "$folder"/*.log; do
  say "last lines of $(basename "$name" .log)'s log:"
  tail -n 5 "$name" >&2
done
fail "one of the processes exited unexpectedly"
