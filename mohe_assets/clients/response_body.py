"""Body of an answer: its kind, and its value, decoded as leniently as JSON, XML and UTF-8 allow."""

import json
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.parsers.expat import ExpatError

import xmltodict

from mohe_assets.text.cleaning import one_line

MAX_QUOTED = 120  # characters of a server's own text in our messages
MAX_WORDS = 5_000  # characters of a body that are searched for words
MAX_DIGITS = 1_000  # of an integer; Python refuses 4,300, jsonb 131,072
FEW_REPLACED = 10  # characters always allowed; three cut characters become nine
MAX_REPLACED = 0.05  # share of the characters; a cut character is under 0.01, EUC-KR over 0.1
MAX_DEPTH = 6  # levels of an error document; the deepest known has 4
MAX_SIBLINGS = 5  # elements of a list that are searched; the longest known head has 3
# Blank and control characters around a document (a trailing NUL is one), and the byte order mark.
_AROUND = "".join(map(chr, (*range(33), 0x7F, 0x85, 0xA0, 0xFEFF)))
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["']([^"']+)["']""")
_EUC_KR = {b"euc-kr", b"euckr", b"cp949", b"ms949", b"ks_c_5601-1987", b"ksc5601"}
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.IGNORECASE | re.DOTALL)
# Escapes of NUL and of surrogates, which jsonb may refuse. The search takes a tenth of the time of
# a pass over the parsed value.
_DOUBTFUL = re.compile(r"\\u(?:0000|[dD][89A-Fa-f])")


class BodyKind(StrEnum):
    """The kind of a body, in the words of error messages."""

    JSON = "JSON of an unknown shape"
    XML = "XML"
    HTML = "an HTML page"
    TEXT = "plain text"
    BLANK = "a blank body"
    BROKEN = "a body that is cut short or garbled"


@dataclass(frozen=True, kw_only=True)
class Body:
    """A classified body.

    `value` is set for JSON (an object or a list, storable as jsonb) and for XML (an object).
    `exact` is False if bytes that are not UTF-8 were guessed or replaced by U+FFFD.
    """

    kind: BodyKind
    text: str = ""
    value: object = None
    exact: bool = True

    @property
    def garbled(self) -> bool:
        """Whether so many characters were replaced that the body has another encoding."""
        replaced = self.text.count("\N{REPLACEMENT CHARACTER}")
        return replaced > max(FEW_REPLACED, MAX_REPLACED * len(self.text))


def sniff(raw: bytes) -> Body:
    """Classify a body by its first character.

    The header Content-Type is ignored: the APIs send JSON as text/html and as text/plain.
    """
    decoded, exact = _decode(raw)
    text = decoded.strip(_AROUND)
    kind, value = BodyKind.TEXT if text else BodyKind.BLANK, None
    try:
        if text[:1] in {"{", "["}:
            kind, value = BodyKind.JSON, _DECODER.decode(text)
            if "\0" in text or _DOUBTFUL.search(text):
                value = storable(value)
        elif text[:9].lower() == "<!doctype" or text[:5].lower() == "<html":
            kind = BodyKind.HTML
        elif text[:1] == "<":
            # Entity declarations are refused: a small body could expand to gigabytes.
            kind = BodyKind.XML
            value = xmltodict.parse(text, disable_entities=True, force_list=("row",))
        elif "\N{REPLACEMENT CHARACTER}" in text:
            return Body(kind=BodyKind.BROKEN, exact=exact)
    except (ValueError, RecursionError, ExpatError):
        return Body(kind=BodyKind.BROKEN, text=text, exact=exact)
    return Body(kind=kind, text=text, value=value, exact=exact)


def _decode(raw: bytes) -> tuple[str, bool]:
    """Return the text, and whether it is certainly the text that was sent.

    The gateway has error pages in EUC-KR, declared or not. JSON is never read as EUC-KR: UTF-8 with
    a bad byte would become other Korean letters.
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


# Shared: `json.loads` with these options creates a decoder per call. Numbers that jsonb cannot
# store become None. Not strict: raw TABs and newlines in titles are accepted.
_DECODER = json.JSONDecoder(
    parse_float=lambda number: value if math.isfinite(value := float(number)) else None,
    parse_int=lambda number: int(number) if len(number) <= MAX_DIGITS else None,
    parse_constant=lambda _: None,
    strict=False,
)


def storable(value: object) -> object:
    """Return the value without the characters that jsonb refuses: NUL and lone surrogates."""
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
    """Return a server's text on a single line of at most MAX_QUOTED characters."""
    # A tree may be too deep for str(), and a text of megabytes is cut before it is cleaned.
    words = str(text) if isinstance(text, str | int | float) else reprlib.repr(text)
    line = one_line(words[: 10 * MAX_QUOTED])
    return line if len(line) <= MAX_QUOTED else line[:MAX_QUOTED] + "…"


def first_of(tree: object, names: Sequence[str]) -> str:
    """Return the first text or number under any of the names, outer levels first, or ""."""
    level: list[object] = [tree]
    for _ in range(MAX_DEPTH):
        objects = [node for node in level if isinstance(node, dict)]
        for name in names:
            for node in objects:
                value = node.get(name)
                text = str(value).strip() if isinstance(value, str | int) else ""
                if text and not isinstance(value, bool):
                    return text
        lists = [node[:MAX_SIBLINGS] for node in level if isinstance(node, list)]
        level = [child for node in (*map(dict.values, objects), *lists) for child in node]
    return ""


def words_of(body: Body) -> str:
    """Return the text of a body without markup, in lower case, with single spaces."""
    text = _MARKUP.sub(" ", body.text[:MAX_WORDS])
    return " ".join(text.replace("_", " ").lower().split())
