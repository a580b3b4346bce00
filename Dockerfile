# One image for the webserver, the daemon, the code server, the workers of runs, the migrations and the web API: what it
# is, the command says. It runs as nobody in particular and on a read-only root: what it writes goes to /tmp, and what
# Dagster keeps of the output of runs to /app/dagster/storage.
#
#     docker build --tag batch-assets .

# Debian 12 of 24 August 2026; its packages are brought up to date below. Where no registry is at hand, any Debian 12.
ARG BASE=docker.io/library/debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171


FROM ${BASE} AS python
RUN apt-get update \
    && apt-get upgrade --yes \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tzdata \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log


# What the locks name. The package comes after it, so that a change of code costs a layer of a few hundred kilobytes.
FROM python AS dependencies
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip python3-venv
RUN python3 -m venv --without-pip /opt/batch-assets
WORKDIR /build
COPY requirements.txt ./
# How pip reaches its registry is the builder's to say, and nothing of it stays: --secret id=pip.conf,src=FILE, and if
# that names an authority as /run/secrets/authorities.pem, --secret id=authorities.pem,src=FILE.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=authorities.pem \
    python3 -m pip --python /opt/batch-assets/bin/python install --quiet --no-cache-dir --no-compile \
        --disable-pip-version-check --only-binary :all: --require-hashes --requirement requirements.txt
# The build backend is locked with the rest, but belongs to no running program; nor do the tests of the large libraries.
RUN cd /opt/batch-assets/lib/python3.11/site-packages \
    && mkdir /build/backend \
    && mv hatchling* pathspec* pluggy* trove_classifiers* /build/backend/ \
    && rm /opt/batch-assets/bin/hatchling /opt/batch-assets/bin/trove-classifiers \
    && find numpy onnx pandas scipy sklearn -type d -name tests -prune -exec rm -r {} + \
    # Read without a look at the source: the two come and go together.
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash .


FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY batch_assets batch_assets
COPY models models
RUN PYTHONPATH=/build/backend python3 -m pip --python /opt/batch-assets/bin/python install --quiet --no-cache-dir \
        --no-compile --disable-pip-version-check --no-index --no-deps --no-build-isolation --prefix /package . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /package/lib


FROM python
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin batch
ENV PATH=/opt/batch-assets/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    DAGSTER_HOME=/app/dagster
WORKDIR /app
COPY --from=dependencies /opt/batch-assets /opt/batch-assets
COPY --from=package /package /opt/batch-assets
COPY dagster.yaml dagster/
# Belongs to the account, and so does a volume that is mounted here.
RUN install --directory --owner 10001 --group 10001 dagster/storage
# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001:10001
CMD ["batch-assets", "--help"]
