"""Clean text from outside: API messages, place titles, region names. Pure: no HTTP, no SQL.

`one_line` cleans text on input, so that it cannot control a terminal, a log or an editor.
`markdown` escapes text on output into Markdown, which a browser renders. `without_controls` cleans
log lines, those of other libraries included.
"""

import re
import unicodedata

# Control characters (ANSI sequences), invisible format characters (bidi overrides, zero-width
# spaces, tags) and lone surrogates. Without ZERO WIDTH JOINER an emoji is split into its parts.
_REMOVED = frozenset({"Cc", "Cf", "Cs"})
_FULLWIDTH_DIGITS = {0xFF10 + digit: str(digit) for digit in range(10)}
# These characters cannot form any construct of CommonMark or GFM, automatic links included.
_PLAIN = re.compile(r"(?:[^\x00-\x7f]|[0-9A-Za-z ,])*")
_BACKTICKS = re.compile("`+")


def one_line(text: str) -> str:
    """Return the text on one line with single spaces, without control and format characters."""
    words = " ".join(text.split())
    if words.isprintable():  # the usual case: no character of _REMOVED
        return words
    # Removing a character between two spaces leaves both.
    return " ".join(without_controls(words).split())


def without_controls(text: str) -> str:
    """Return the text without control and format characters other than line feeds and tabs."""
    if text.isprintable():
        return text
    return "".join(
        letter
        for letter in text
        if letter in "\n\t" or unicodedata.category(letter) not in _REMOVED
    )


def ascii_digits(text: str) -> str:
    """Return the text with fullwidth digits (０-９) as ASCII digits."""
    return text.translate(_FULLWIDTH_DIGITS)


def markdown(text: str) -> str:
    """Return Markdown that shows the text literally, also in a table cell.

    Plain words stay unchanged; other text becomes a code span, which cannot contain an image, a
    link (GFM links bare URLs, too) or HTML. A `|` ends a table cell even in a code span, so it is
    escaped outside.
    """
    line = one_line(text)
    if _PLAIN.fullmatch(line):
        return line
    parts = line.split("|")
    for at, part in enumerate(parts):
        if part.strip():
            fence = "`" * (1 + max(map(len, _BACKTICKS.findall(part)), default=0))
            # Renderers remove a space at both ends.
            padding = " " if part[0] in "` " or part[-1] in "` " else ""
            parts[at] = f"{fence}{padding}{part}{padding}{fence}"
    return r"\|".join(parts)
