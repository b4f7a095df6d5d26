# pipeline in a container, built from this folder:
#
#   docker build --tag pipeline .
#   docker run --rm --volume "$PWD/data:/work/data:ro" --volume pipeline-data:/work/pipeline-data pipeline run data/sample

# --- build: the compiler that rust-toolchain.toml names
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# without rust-toolchain.toml: it would have rustup download rustfmt and clippy, which nobody uses here
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY src src
COPY sql sql
# what is downloaded and what is compiled outlives the layer, so that a change of the sources does not build all
# dependencies again; the program has to be copied out of the cache
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin pipeline && cp target/release/pipeline /usr/local/bin/pipeline

# --- run: the C library, certificate authorities for TLS, and the program
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /work pipeline \
    && mkdir /work/pipeline-data \
    && chown pipeline /work/pipeline-data
COPY --from=build /usr/local/bin/pipeline /usr/local/bin/pipeline
USER pipeline
WORKDIR /work
# a new volume takes this folder's owner, so that the archive can be written
VOLUME /work/pipeline-data
ENTRYPOINT ["pipeline"]
