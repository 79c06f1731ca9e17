"""Reading the repository's Markdown pages: sections, fenced blocks, tables, shown numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A page's fenced blocks: their language and their text.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w-])\d[\d,]*(?:\.\d+)?")


def text_of(name: str) -> str:
    """Return a page by its path from the repository's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[str]:
    """Return the fenced blocks in these languages."""
    return [body for language, body in BLOCK.findall(text_of(name)) if language in languages]


def headings(name: str) -> list[tuple[int, str]]:
    """Return level and text of each heading."""
    plain = BLOCK.sub("", text_of(name))
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) (.+)$", plain, re.MULTILINE)]


def section(name: str, heading: str) -> str:
    """Return the text below a heading of the second level."""
    _, found, rest = text_of(name).partition(f"\n## {heading}\n")
    assert found, f"{name} has no section {heading!r}"
    return rest.partition("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows of a text, headers included."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text as they are written."""
    return _NUMBER.findall(text)


def shows(written: str, value: float) -> bool:
    """Return whether a written number is this value, rounded to the digits that are shown."""
    plain = written.replace(",", "")
    decimals = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5 * 0.1**decimals * (1 + 1e-9)


def differences(written: Sequence[str], values: Sequence[float]) -> list[str]:
    """Return each written number that is not the value at its place; all if the counts differ."""
    if len(written) != len(values):
        return [f"{len(written)} numbers are written, {len(values)} are expected: {written}"]
    return [
        f"{text} is written, {value} was measured"
        for text, value in zip(written, values, strict=True)
        if not shows(text, value)
    ]
