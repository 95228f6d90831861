# The images of session-mesh. From the repository's root:
#
#     docker build --target filter  --tag session-mesh/filter:0.1.0 .    the module, as Istio and Envoy Gateway pull it
#     docker build --target gateway --tag session-mesh/gateway:0.1.0 .   the session gateway
#     docker build --target envoy   --tag session-mesh/envoy:0.1.0 .     Envoy and the module
#
# envoy/docker-compose.yaml builds the last two on its own. Nothing here needs BuildKit, so the builder of a Docker
# older than 23 works, too.

# As in Cargo.toml and scripts/tools.sh; a test compares them.
ARG RUST_VERSION=1.95
ARG ENVOY_VERSION=1.40.0

FROM rust:${RUST_VERSION}-slim-bookworm AS toolchain
# A statically linked program needs no files of an operating system.
RUN rustup target add wasm32-wasip1 "$(uname -m)-unknown-linux-musl"
WORKDIR /session-mesh
COPY . .

FROM toolchain AS build-filter
RUN ./wasm-build.sh && mv dist/session_mesh.wasm /plugin.wasm && rm -r target

FROM scratch AS filter
LABEL org.opencontainers.image.title="session-mesh filter" \
  org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-filter /plugin.wasm /plugin.wasm

FROM toolchain AS build-gateway
RUN target="$(uname -m)-unknown-linux-musl" \
  && cargo build --locked --release --target "$target" --package session-gateway \
  && mv "target/$target/release/session-gateway" /session-gateway \
  && rm -r target

FROM scratch AS gateway
LABEL org.opencontainers.image.title="session-gateway" \
  org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-gateway /session-gateway /session-gateway
# By number: there are no users in this image. It writes no files, so its root file system can be read-only.
USER 65532:65532
ENV SESSION_GATEWAY_LISTEN=0.0.0.0:9100 SESSION_GATEWAY_ADMIN_LISTEN=0.0.0.0:9101
EXPOSE 9100 9101
# Alive, not ready: restarting a gateway would not bring its memcached back.
HEALTHCHECK --interval=2s --timeout=5s --start-period=10s --retries=3 CMD ["/session-gateway", "healthcheck"]
ENTRYPOINT ["/session-gateway"]

FROM envoyproxy/envoy:v${ENVOY_VERSION} AS envoy
LABEL org.opencontainers.image.title="Envoy with the session-mesh filter"
COPY --from=filter /plugin.wasm /plugin.wasm
# The image's own entry point would start as root and change to another user.
USER 65532:65532
