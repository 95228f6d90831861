#!/usr/bin/env bash
# Builds everything that a release has, twice, and checks that both are the same bytes.
set -euo pipefail
# shellcheck source=scripts/tools.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tools.sh"

usage() {
  cat <<'USAGE'
usage: scripts/release.sh [--once] [FOLDER]

Builds the release of the last commit into FOLDER (default dist/release):

  session_mesh.wasm                the filter's module
  session-gateway-linux-amd64      the gateway, static
  session-gateway-linux-arm64
  session-gateway.oci.tar          its image for both, and the filter's, as OCI layouts:
  session-mesh-filter.oci.tar      `skopeo copy oci-archive:FILE docker://…` pushes one
  session_mesh.cdx.json            what each is made of: CycloneDX, from Cargo.lock
  session-gateway.cdx.json         (the same for amd64 and arm64)
  CHANGES.md                       the version's part of CHANGELOG.md
  SHA256SUMS

Everything is built twice, in different folders, and must be the same bytes. --once builds once and compares nothing.
Nothing is signed or pushed.
USAGE
}

rounds=2
folder=$ROOT/dist/release
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage && exit ;;
    --once) rounds=1 ;;
    -*) usage >&2 && exit 2 ;;
    *) folder=$(realpath -m -- "$1") ;;
  esac
  shift
done

need_wasm_target
need_python
need_apt readelf binutils
need_cargo_cyclonedx
declare -A targets=([amd64]=x86_64-unknown-linux-musl [arm64]=aarch64-unknown-linux-musl)
for target in "${targets[@]}"; do
  [[ -d $(rustc --print sysroot)/lib/rustlib/$target ]] && continue
  command -v rustup >/dev/null || fail "Rust's $target target is missing and there is no rustup to add it"
  timed "adding Rust's $target target" rustup target add "$target"
done

cd "$ROOT"
commit=$(git rev-parse HEAD)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[[ -n $version ]] || fail "Cargo.toml has no version in [workspace.package]"
# A commit with a version's tag is that version, and the changelog says so.
section=$(git show "$commit:CHANGELOG.md" | awk '/^## / && !n++')
for tag in $(git tag --points-at "$commit" 'v*'); do
  [[ $tag == "v$version" ]] || fail "the commit has the tag $tag, but Cargo.toml says that this is version $version"
  [[ $section == "## [$version]"* ]] || fail "CHANGELOG.md begins with '$section', not with a section [$version]"
done
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build ROUND: leaves a release in $work/ROUND/release.
build() {
  local source=$work/$1/source out=$work/$1/release architecture
  mkdir -p "$source" "$out"
  git archive "$commit" | tar -x -C "$source"
  # Paths of this machine are no part of the release; without a linker of its own Rust's does for both machines.
  local remap="--remap-path-prefix=$source=/session-mesh --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  export CARGO_TARGET_DIR=$source/target
  (cd "$source" && RUSTFLAGS=$remap ./wasm-build.sh && cp dist/session_mesh.wasm "$out/")
  # In one go, as the last crate of each keeps only one processor busy.
  (cd "$source" && RUSTFLAGS="$remap -Clinker=rust-lld -Clink-self-contained=yes" \
    cargo build --locked --release --package session-gateway "${targets[@]/#/--target=}")
  for architecture in "${!targets[@]}"; do
    cp "$CARGO_TARGET_DIR/${targets[$architecture]}/release/session-gateway" "$out/session-gateway-linux-$architecture"
    is_static "$out/session-gateway-linux-$architecture" || fail "the gateway for $architecture is not static"
  done
  images "$out" "$work/$1"
  sbom "$source" . wasm32-wasip1 > "$out/session_mesh.cdx.json"
  sbom "$source" crates/gateway x86_64-unknown-linux-musl > "$out/session-gateway.cdx.json"
  # The changelog's first section is the version that is being made, released or not.
  awk '/^## /{ n++ } n == 1' "$source/CHANGELOG.md" > "$out/CHANGES.md"
  (cd "$out" && sha256sum -- * > "$work/$1/SHA256SUMS" && mv "$work/$1/SHA256SUMS" .)
  rm -rf "$source"
}

# is_static PROGRAM: whether it needs neither a loader nor a library.
is_static() {
  local headers
  headers=$(readelf --program-headers --dynamic --wide "$1") && [[ ! $headers =~ INTERP|\(NEEDED\) ]]
}

# sbom SOURCE PACKAGE_FOLDER TARGET: prints what a package is made of, without what differs from run to run.
sbom() {
  "$CARGO_CYCLONEDX" cyclonedx -qq --format json --spec-version 1.5 --target "$3" \
    --manifest-path "$1/$2/Cargo.toml" --override-filename sbom
  python3 - "$1" "$1/$2/sbom.json" <<'PYTHON'
import datetime, json, os, sys
source, path = sys.argv[1:]
with open(path) as file:
    document = json.loads(file.read().replace(source, "/session-mesh"))
del document["serialNumber"]
made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
document["metadata"]["timestamp"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
json.dump(document, sys.stdout, indent=2)
print()
PYTHON
}

# images RELEASE FOLDER: writes both images into RELEASE.
images() {
  local out=$1 folder=$2
  python3 - "$out" "$folder" "$version" "$commit" <<'PYTHON'
import json, sys
out, folder, version, commit = sys.argv[1:]
labels = lambda title: {
    "org.opencontainers.image.title": title,
    "org.opencontainers.image.version": version,
    "org.opencontainers.image.revision": commit,
    "org.opencontainers.image.licenses": "Apache-2.0",
}
gateway = {
    "User": "65532:65532",
    "Env": ["SESSION_GATEWAY_LISTEN=0.0.0.0:9100", "SESSION_GATEWAY_ADMIN_LISTEN=0.0.0.0:9101"],
    "ExposedPorts": {"9100/tcp": {}, "9101/tcp": {}},
    "Entrypoint": ["/session-gateway"],
}
images = {
    "session-gateway": [
        {
            "architecture": architecture,
            "files": {"/session-gateway": f"{out}/session-gateway-linux-{architecture}"},
            "config": gateway,
            "labels": labels("session-gateway"),
        }
        for architecture in ("amd64", "arm64")
    ],
    # The module is the same on each machine.
    "session-mesh-filter": [
        {
            "architecture": architecture,
            "files": {"/plugin.wasm": f"{out}/session_mesh.wasm"},
            "config": {},
            "labels": labels("session-mesh filter"),
        }
        for architecture in ("amd64", "arm64")
    ],
}
for name, image in images.items():
    with open(f"{folder}/{name}.json", "w") as file:
        json.dump(image, file)
PYTHON
  local name
  for name in session-gateway session-mesh-filter; do
    python3 scripts/oci_layout.py "$folder/$name" "$version" "$folder/$name.json"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar \
      -C "$folder/$name" -cf "$out/$name.oci.tar" .
  done
}

for ((round = 1; round <= rounds; round++)); do
  # Not by `timed`: what runs beside `||` does not end with the first command that fails.
  say "release $version, build $round of $rounds ..."
  build "$round"
done
if ((rounds == 2)); then
  diff --recursive --brief "$work/1/release" "$work/2/release" || fail "two builds of the same commit differ"
  say "both builds are the same bytes"
fi
rm -rf "$folder"
mkdir -p "$(dirname -- "$folder")"
mv "$work/1/release" "$folder"
ls -l "$folder"
