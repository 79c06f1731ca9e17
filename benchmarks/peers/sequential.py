"""One search after the other with requests, each stored and recorded in one transaction. Resumes by
that record.
"""

import psycopg2
import requests
from psycopg2.extras import execute_values

from benchmarks.peers.job import TABLE, UPSERT, Job, rows

TICKED = "CREATE TABLE IF NOT EXISTS done (query text PRIMARY KEY)"


def main() -> None:
    job = Job.given()
    connection = psycopg2.connect(job.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.execute(TICKED)
        cursor.execute("SELECT query FROM done")
        done = {query for (query,) in cursor}
    with requests.Session() as session:
        session.headers.update(job.headers)
        for code, query in job.searches():
            if query in done:
                continue
            response = session.get(job.url, params=job.params(query), timeout=30)
            response.raise_for_status()
            with connection, connection.cursor() as cursor:
                if found := rows(response.json(), code):
                    execute_values(cursor, UPSERT, found)
                cursor.execute("INSERT INTO done VALUES (%s)", (query,))
    connection.close()


if __name__ == "__main__":
    main()
