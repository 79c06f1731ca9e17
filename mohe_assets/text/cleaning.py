"""Text that others wrote: API messages, place titles, region names. Pure: no HTTP, no SQL.

Three doors. `one_line` cleans text where it comes in, so that it cannot act on a terminal, in a log
or in an editor. `markdown` makes text harmless where it goes into Markdown, which a browser shows.
`without_controls` cleans what is written to a log, which also has lines of other libraries.
"""

import re
import unicodedata

# Control characters (ANSI sequences begin with one), invisible format characters (bidi overrides,
# zero-width spaces, tags) and lone surrogates. ZERO WIDTH JOINER is among them: an emoji of several
# parts falls apart into its parts.
_REMOVED = frozenset({"Cc", "Cf", "Cs"})
_FULLWIDTH_DIGITS = {0xFF10 + digit: str(digit) for digit in range(10)}
# No construct of CommonMark or GFM, automatic links included, can be written with these.
_PLAIN = re.compile(r"(?:[^\x00-\x7f]|[0-9A-Za-z ,])*")
_BACKTICKS = re.compile("`+")


def one_line(text: str) -> str:
    """Return the text on one line: white space folded into single spaces, control and format
    characters removed.
    """
    words = " ".join(text.split())
    if words.isprintable():  # the usual case; lacks Cc, Cf and Cs, and more
        return words
    kept = without_controls(words).split()  # what was removed may have stood between two spaces
    return " ".join(kept)


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
    """Return the text as Markdown that shows it literally, also in a table's cell.

    Plain words stay as they are; anything else becomes a code span, in which nothing has a meaning:
    no image, no link (GFM also makes links of bare URLs and addresses), no HTML. Only a `|` ends a
    cell even there: it stays outside.
    """
    line = one_line(text)
    if _PLAIN.fullmatch(line):
        return line
    return r"\|".join(_code_span(part) if part.strip() else part for part in line.split("|"))


def _code_span(text: str) -> str:
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(text)), default=0))
    padding = " " if text[0] in "` " or text[-1] in "` " else ""  # one on each side is not shown
    return f"{fence}{padding}{text}{padding}{fence}"
