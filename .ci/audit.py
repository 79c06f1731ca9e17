"""Asks a vulnerability service about every pinned version, and says so when it could not.

Exit status: 0 every version was looked up and none is known to be vulnerable; 1 some are, or the
file cannot be read; 75 the audit could not be done, because no service answered or none knows the
packages. pip-audit alone ends with 0 when the index it asks knows nothing.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOUND, NOT_DONE = 1, 75
# What pip-audit's last line says when the service is the reason; whatever else it says is about
# what it was asked to do.
UNREACHABLE = re.compile(
    r"requests\.exceptions\.|ServiceError|ConnectionError|timed out", re.IGNORECASE
)


@dataclass(kw_only=True)
class Audit:
    """What one service said: `found` and `unknown` are lines to print, `why` is why there is no
    answer at all.
    """

    service: str
    checked: int = 0
    found: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    why: str | None = None


def ask(service: str, requirements: Path, options: list[str]) -> Audit:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--vulnerability-service",
        service,
        "--requirement",
        str(requirements),
    ]
    command += [
        "--no-deps",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--timeout",
        "20",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        if not UNREACHABLE.search(last):
            raise SystemExit(
                f"audit: pip-audit ended with status {done.returncode}:\n{done.stderr}"
            ) from None
        return Audit(service=service, why=last)
    return _read(service, packages)


def _read(service: str, packages: list[dict[str, Any]]) -> Audit:
    audit = Audit(service=service)
    for package in packages:
        if "skip_reason" in package:
            audit.unknown.append(package["name"])
            continue
        audit.checked += 1
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            audit.found.append(
                f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}"
            )
    if not audit.checked:
        audit.why = f"it knows none of the {len(packages)} packages"
    return audit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requirements", type=Path, nargs="?", default=Path("constraints.txt"))
    parser.add_argument(
        "--service",
        action="append",
        help="pypi, osv or esms; several are asked in turn until one answers",
    )
    parser.add_argument("--osv-url", help="where to find OSV's query instead of its own host")
    arguments = parser.parse_args()
    options = ["--osv-url", arguments.osv_url] if arguments.osv_url else []
    for service in arguments.service or ["pypi", "osv"]:
        audit = ask(service, arguments.requirements, options)
        if audit.why is None:
            return report(audit)
        print(f"audit: {service} gave no answer: {audit.why}", file=sys.stderr)
    print(
        f"audit: NOT DONE. No service could be asked about {arguments.requirements}; whether a "
        "pinned version is",
        file=sys.stderr,
    )
    print(
        "audit: known to be vulnerable has to be found out elsewhere: `make audit` on a machine "
        "with Internet.",
        file=sys.stderr,
    )
    return NOT_DONE


def report(audit: Audit) -> int:
    for line in audit.found:
        print(f"audit: {line}", file=sys.stderr)
    if audit.unknown:
        print(
            f"audit: NOT DONE for {len(audit.unknown)}, unknown to {audit.service}: "
            + ", ".join(audit.unknown),
            file=sys.stderr,
        )
    verdict = (
        f"{len(audit.found)} known vulnerabilities"
        if audit.found
        else "none known to be vulnerable"
    )
    print(f"audit: {audit.checked} pinned versions looked up at {audit.service}, {verdict}")
    if audit.found:
        return FOUND
    return NOT_DONE if audit.unknown else 0


if __name__ == "__main__":
    sys.exit(main())
