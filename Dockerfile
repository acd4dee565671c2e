# `docker build -t pg .`, then `docker run --rm -v "$PWD/runs:/work/runs" pg run models/int4mlp_12l.rs`.
# Not tested: no image can be pulled where pg is developed. Its two RUN lines are those of README and .ci/run.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p pg-runtime

FROM debian:bookworm-slim
COPY --from=build /src/target/release/pg /usr/local/bin/pg
COPY --from=build /src/models /work/models
WORKDIR /work
ENTRYPOINT ["pg"]
