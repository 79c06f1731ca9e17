"""A collecting run loads only the libraries it needs: each other one costs memory and start-up time
of every worker.
"""

import re

from mohe_assets_tests.support.processes import StartWorker
from mohe_assets_tests.support.regions import FewRegions

IMPORTED = re.compile(r"^import time:.*\| +([\w.]+)$", re.MULTILINE)


def test_a_run_loads_no_library_that_it_does_without(
    start_worker_from_a_shell: StartWorker, few: FewRegions
) -> None:
    few(2)
    worker = start_worker_from_a_shell(PYTHONPROFILEIMPORTTIME="1").succeed()

    loaded = {name.partition(".")[0] for name in IMPORTED.findall(worker.output)}
    assert {"aiohttp", "dagster", "psycopg2", "uvloop"} <= loaded, "what it cannot do without"
    # numpy weighs thousands of candidates in a refinement; requests reads the environment of
    # servers that are not this machine.
    assert (
        loaded & {"matplotlib", "numpy", "pandas", "pandera", "pyarrow", "requests", "starlette"}
        == set()
    )
