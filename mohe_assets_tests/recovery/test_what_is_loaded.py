"""A run that collects loads what it needs: each library that it does without is memory and start-up
of every worker.
"""

import re

from mohe_assets_tests.recovery.conftest import FewRegions, StartWorker

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
