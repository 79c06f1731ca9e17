"""The audit of pinned versions, with pip-audit itself and a vulnerability service of this test's
own.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
FOUND, NOT_DONE = 1, 75


def vulnerable(package: str, fixed: str) -> dict[str, Any]:
    """As OSV writes it down."""
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
    affected = [{"package": {"name": package, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": "PYSEC-2026-1", "summary": "made up", "aliases": [], "affected": affected}


@contextmanager
def service(vulnerabilities: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Answers OSV's query; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = vulnerabilities.get(asked["package"]["name"])
            body = json.dumps({"vulns": [known]} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            del format, arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def audit(pins: str, folder: Path, *options: str) -> tuple[int, str]:
    (folder / "pins.txt").write_text(pins, encoding="utf-8")
    plain = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    command = [sys.executable, str(AUDIT), str(folder / "pins.txt"), *options]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_version_known_to_be_vulnerable_is_named_with_the_version_that_mends_it(
    tmp_path: Path,
) -> None:
    with service({"dagster": vulnerable("dagster", "2.0")}) as url:
        status, said = audit(
            "dagster==1.13.27\nrequests==2.34.2\n", tmp_path, "--service", "osv", "--osv-url", url
        )
        assert status == FOUND, said
        assert "dagster 1.13.27: PYSEC-2026-1, fixed in 2.0" in said
        assert "2 pinned versions looked up at osv, 1 known" in said
        status, said = audit("requests==2.34.2\n", tmp_path, "--service", "osv", "--osv-url", url)
        assert (status, "none known to be vulnerable" in said) == (0, True), said


def test_an_audit_that_could_not_be_done_is_neither_passed_nor_failed(tmp_path: Path) -> None:
    status, said = audit(
        "dagster==1.13.27\n",
        tmp_path,
        "--service",
        "osv",
        "--osv-url",
        "http://127.0.0.1:9/v1/query",
    )
    assert (status, "NOT DONE" in said) == (NOT_DONE, True), said
    assert "osv gave no answer" in said


@pytest.mark.parametrize("pins", ["not a requirement ==\n", "dagster>=1\n"])
def test_a_file_that_pins_nothing_fails(tmp_path: Path, pins: str) -> None:
    with service({}) as url:
        status, said = audit(pins, tmp_path, "--service", "osv", "--osv-url", url)
    assert status == 1, said
    assert "none known to be vulnerable" not in said
