"""Body of an answer: its kind, and its value decoded as leniently as JSON, XML and UTF-8 allow."""

import json
import math
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.parsers.expat import ExpatError

import xmltodict

from mohe_assets.text.cleaning import one_line

MAX_QUOTED = 120  # characters of a server's own text in our messages
MAX_WORDS = 5_000  # characters of a body that are searched for words
MAX_DIGITS = 1_000  # of a whole number; Python refuses 4,300, jsonb 131,072
FEW_REPLACED = 10  # characters; three cut ones make nine
MAX_REPLACED = 0.05  # of the characters; one cut one is under 0.01, EUC-KR over 0.1
MAX_DEPTH = 6  # levels of an error document; the deepest known has 4
MAX_SIBLINGS = 5  # elements of a list that are searched; the longest known head has 3
# Blank and control characters around a document (a trailing NUL is one), and the byte order mark.
_AROUND = "".join(map(chr, (*range(33), 0x7F, 0x85, 0xA0, 0xFEFF)))
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["']([^"']+)["']""")
_EUC_KR = {b"euc-kr", b"euckr", b"cp949", b"ms949", b"ks_c_5601-1987", b"ksc5601"}
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.IGNORECASE | re.DOTALL)
# An escape of NUL or of half a pair, which jsonb refuses. To look for it takes a tenth of the time
# to go through what was parsed.
_DOUBTFUL = re.compile(r"\\u(?:0000|[dD][89A-Fa-f])")


class BodyKind(StrEnum):
    """Named as they appear in an error's sentence."""

    JSON = "JSON of an unknown shape"
    XML = "XML"
    HTML = "an HTML page"
    TEXT = "plain text"
    BLANK = "a blank body"
    BROKEN = "a body that is cut short or garbled"


@dataclass(frozen=True, kw_only=True)
class Body:
    """A sniffed body.

    `value` is set for JSON (an object or a list, which PostgreSQL's jsonb can keep) and for XML (an
    object). `exact` is False when bytes that are not UTF-8 were guessed or replaced by U+FFFD.
    """

    kind: BodyKind
    text: str = ""
    value: object = None
    exact: bool = True

    @property
    def garbled(self) -> bool:
        """Whether so much was replaced that the body is in another encoding altogether."""
        replaced = self.text.count("\N{REPLACEMENT CHARACTER}")
        return replaced > max(FEW_REPLACED, MAX_REPLACED * len(self.text))


def sniff(raw: bytes) -> Body:
    """Tell by the first byte, never by the Content-Type: one API sends JSON as text/html, the other
    as text/plain.
    """
    decoded, exact = _decoded(raw)
    text = decoded.strip(_AROUND)
    if text[:1] in {"{", "["}:
        return _json(text, exact=exact)
    if text[:1] == "<":
        is_page = text[:9].lower() == "<!doctype" or text[:5].lower() == "<html"
        if is_page:
            return Body(kind=BodyKind.HTML, text=text, exact=exact)
        return _xml(text, exact=exact)
    if "\N{REPLACEMENT CHARACTER}" in text:
        return Body(kind=BodyKind.BROKEN, exact=exact)
    return Body(kind=BodyKind.TEXT if text else BodyKind.BLANK, text=text, exact=exact)


def _decoded(raw: bytes) -> tuple[str, bool]:
    """The text, and whether it is certain to be what was sent.

    The gateway has error pages in EUC-KR, declared or not. JSON is never read as EUC-KR: UTF-8 with
    one bad byte would become other Korean letters.
    """
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        start = raw[:200].lstrip()
    declared = _ENCODING.search(start)
    is_korean = declared is not None and declared[1].lower() in _EUC_KR
    if is_korean or (declared is None and start[:1] not in {b"{", b"["}):
        try:
            return raw.decode("cp949"), is_korean
        except UnicodeDecodeError:
            pass
    return raw.decode(errors="replace"), False


def _json(text: str, *, exact: bool) -> Body:
    try:
        value = _DECODER.decode(text)
        if "\0" in text or _DOUBTFUL.search(text):
            value = storable(value)
    except (ValueError, RecursionError):
        return Body(kind=BodyKind.BROKEN, text=text, exact=exact)
    return Body(kind=BodyKind.JSON, text=text, value=value, exact=exact)


def _xml(text: str, *, exact: bool) -> Body:
    # Entity declarations are refused: a small body could expand to gigabytes.
    try:
        value = xmltodict.parse(text, disable_entities=True, force_list=("row",))
    except (ExpatError, ValueError):
        return Body(kind=BodyKind.BROKEN, text=text, exact=exact)
    return Body(kind=BodyKind.XML, text=text, value=value, exact=exact)


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def _whole(number: str) -> int | None:
    return int(number) if len(number) <= MAX_DIGITS else None


# One for all: `json.loads` would make one for each body that is read like this. jsonb has no number
# that is not finite. Not strict: a raw TAB or newline in a title costs nothing.
_DECODER = json.JSONDecoder(
    parse_float=_finite,
    parse_int=_whole,
    parse_constant=lambda _: None,
    strict=False,
)


def storable(value: object) -> object:
    """Return the value without what jsonb refuses in texts: NUL characters and lone surrogates."""
    match value:
        case str():
            return value.replace("\0", "").encode("utf-8", "ignore").decode()
        case list():
            return [storable(item) for item in value]
        case dict():
            return {str(storable(key)): storable(item) for key, item in value.items()}
        case _:
            return value


def quoted(text: object) -> str:
    """A server's own words on one line, short enough for a message."""
    # A tree may be too deep for str(), and a text of megabytes is cut before it is looked through.
    words = str(text) if isinstance(text, str | int | float) else reprlib.repr(text)
    line = one_line(words[: 10 * MAX_QUOTED])
    return line if len(line) <= MAX_QUOTED else line[:MAX_QUOTED] + "…"


def first_of(tree: object, names: Sequence[str]) -> str:
    """The first text or number under one of the names, outer levels first, or ""."""
    level: list[object] = [tree]
    for _ in range(MAX_DEPTH):
        objects = [node for node in level if isinstance(node, dict)]
        for name in names:
            for node in objects:
                value = node.get(name)
                text = str(value).strip() if isinstance(value, str | int) else ""
                if text and not isinstance(value, bool):
                    return text
        level = [child for node in level for child in _children(node)]
    return ""


def _children(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node[:MAX_SIBLINGS]


def words_of(body: Body) -> str:
    """The text of a body of an unknown shape: no markup, lower case, single spaces."""
    text = _MARKUP.sub(" ", body.text[:MAX_WORDS])
    return " ".join(text.replace("_", " ").lower().split())
