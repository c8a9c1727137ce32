# syntax=docker/dockerfile:1
# Four stages: the dependencies (a layer that only a changed manifest rebuilds), the binary, the list of
# its parts, and an image that holds the binary and little else. `.ci/image` checks this file
# without a container engine.

ARG RUST_VERSION=1.95
ARG DEBIAN=trixie

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS dependencies
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY actors/Cargo.toml actors/
COPY entity/Cargo.toml entity/
COPY migration/Cargo.toml migration/
COPY src/egress/Cargo.toml src/egress/
COPY src/git/Cargo.toml src/git/
COPY src/secrets/Cargo.toml src/secrets/
COPY src/section/Cargo.toml src/section/
COPY src/sinks/Cargo.toml src/sinks/
COPY src/store/Cargo.toml src/store/
COPY src/telemetry/Cargo.toml src/telemetry/
# The manifest names these files, so they must exist.
COPY benches benches/
# Empty crates with the real manifests: this compiles only the dependencies.
RUN mkdir -p actors/src entity/src migration/src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs actors/src/lib.rs entity/src/lib.rs migration/src/lib.rs \
        src/egress/lib.rs src/git/lib.rs src/secrets/lib.rs src/section/lib.rs src/sinks/lib.rs \
        src/store/lib.rs src/telemetry/lib.rs \
    && cargo build --profile dist --locked --bin tidings

FROM dependencies AS binary
ARG BUILD_NUMBER=unknown
ARG GIT_SHA=unknown
ARG BUILD_DATE=unknown
ENV TIDINGS_BUILD_NUMBER=${BUILD_NUMBER} TIDINGS_GIT_SHA=${GIT_SHA} TIDINGS_BUILD_DATE=${BUILD_DATE}
COPY . .
# Cargo compares times: the real sources must be younger than the empty ones.
RUN find src actors entity migration -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --bin tidings \
    && mkdir -p /image/data \
    && cp target/dist/tidings /image/tidings

FROM dependencies AS sbom
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/sbom.py deploy/
RUN cargo metadata --format-version 1 --locked --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" \
    | python3 deploy/sbom.py Cargo.lock > /sbom.cdx.json

FROM debian:${DEBIAN}-slim
ARG VERSION=0.2.0
ARG GIT_SHA=unknown
ARG BUILD_DATE=unknown
LABEL org.opencontainers.image.title="Tidings" \
      org.opencontainers.image.description="Change data capture for Git" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_SHA}" \
      org.opencontainers.image.created="${BUILD_DATE}" \
      org.opencontainers.image.base.name="debian:trixie-slim"
# The certificate roots for receivers and Git hosts.
COPY --from=binary /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=binary --chown=65532:65532 --chmod=0700 /image/data /data
COPY --from=sbom /sbom.cdx.json /usr/share/tidings/sbom.cdx.json
COPY --from=binary /image/tidings /tidings
# All written files are below /data: the root may be mounted read-only. With few
# arenas, memory that the C libraries (Git, SQLite) free goes back to the system.
ENV MALLOC_ARENA_MAX=2 \
    TIDINGS__DATA_DIR=/data \
    TIDINGS__SERVER__LISTEN=0.0.0.0:8080 \
    TIDINGS__TELEMETRY__LOG_FORMAT=json
USER 65532:65532
VOLUME ["/data"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/tidings", "healthcheck"]
ENTRYPOINT ["/tidings"]
CMD ["serve"]
