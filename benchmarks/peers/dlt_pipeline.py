"""dlt: a resource of searches, a transformer that asks them in threads, merged by the place's key.

Resumes as its documentation says for lists of requested entities: the regions done are in the
resource's state, which dlt commits with the data of a run. `regions_per_run` loads in several runs,
as its page on backfilling in chunks does.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import dlt
from dlt.sources.helpers import requests
from sqlalchemy.engine import make_url

from benchmarks.peers.job import COLUMNS, Job, rows

# Without hints dlt guesses from the first rows; these are the types of the other peers' tables.
DECIMALS = {"latitude": 10, "longitude": 11}


@dlt.source(max_table_nesting=0)
def local_search(job: Job) -> Any:  # noqa: ANN401 - what the decorator makes of it
    most = job.settings.get("regions_per_run", len(job.regions))

    @dlt.resource(selected=False)
    def searches() -> Iterator[list[tuple[str, str]]]:
        done = dlt.current.resource_state().setdefault("done", [])
        for code, name in [one for one in job.regions if one[0] not in done][:most]:
            done.append(code)
            yield [(code, query) for query in job.queries(name)]

    @dlt.transformer(
        data_from=searches,
        write_disposition="merge",
        primary_key="naver_place_id",
        columns={
            name: {"data_type": "decimal", "precision": digits, "scale": 8}
            for name, digits in DECIMALS.items()
        },
    )
    def places(asked: list[tuple[str, str]]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        @dlt.defer
        def ask(code: str, query: str) -> list[dict[str, Any]]:
            response = requests.get(job.url, params=job.params(query), headers=job.headers)
            return [dict(zip(COLUMNS, row, strict=True)) for row in rows(response.json(), code)]

        for code, query in asked:
            yield ask(code, query)

    return searches, places


def credentials(url: str) -> str:
    """Return a URL with the host and password that dlt requires; libpq uses the socket's folder in
    the query.
    """
    local = make_url(url).set(host="localhost", password="none")  # noqa: S106 - a placeholder
    return local.render_as_string(hide_password=False)


def main() -> None:
    job = Job.given()
    pipeline = dlt.pipeline(
        pipeline_name="local_search",
        pipelines_dir=os.path.realpath("dlt"),
        destination=dlt.destinations.postgres(credentials(job.database_url)),
        dataset_name="public",
    )
    pieces = -(-len(job.regions) // job.settings.get("regions_per_run", len(job.regions)))
    for _ in range(pieces):
        pipeline.run(local_search(job)).raise_on_failed_jobs()


if __name__ == "__main__":
    main()
