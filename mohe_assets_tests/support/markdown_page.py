"""Markdown as a browser gets it, by a parser of CommonMark with GFM's tables; and text that wants
to be more than text.
"""

import re
from dataclasses import dataclass
from typing import Self

from markdown_it import MarkdownIt
from markdown_it.token import Token

HOSTILE = (
    "![x](/p)",
    "![x](/graphql?query=mutation{shutdownRepositoryLocation})",
    "[click](javascript:alert(1))",
    "[a]: /p",
    "![x][a]",
    "<img src=/p onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- -->",
    "<http://evil.example>",
    "http://evil.example www.evil.example x@evil.example",
    "&lt;img src=x&gt; &#33;[x](/p)",
    "a|b",
    "|",
    "||a||",
    "a\\|b",
    "a\\",
    "\\|![x](/p)",
    "`a`",
    "`",
    "```",
    "a `b|c` ![x](/p) ``",
    "`|`|``|",
    "# heading",
    "- item",
    "1. item",
    "> quotation",
    "---",
    "=====",
    "| a | b |\n|---|---|\n| c | d |",
    "a\n\n![x](/p)\n\n<b>",
    "    ![x](/p)",
    "*a* _b_ **c** ~~d~~",
    "$x$ :smile: @someone #1",
)
ACTIVE = {"image", "link_open", "html_inline", "html_block", "em_open", "strong_open", "s_open"}
# GFM makes links of these in any text that is no code.
BARE_LINK = re.compile(r"://|www\.|\w@\w")


@dataclass(frozen=True)
class Page:
    """A parsed page."""

    tokens: list[Token]

    @classmethod
    def of(cls, markdown: str) -> Self:
        return cls(
            MarkdownIt("commonmark", {"html": True})
            .enable(["table", "strikethrough"])
            .parse(markdown)
        )

    @property
    def inline(self) -> list[Token]:
        return [child for token in self.tokens for child in token.children or ()]

    def has_nothing_active(self, *, images: int = 0) -> None:
        """Assert that there is no link, HTML or emphasis, and exactly this number of images."""
        active = [one for one in (*self.tokens, *self.inline) if one.type in ACTIVE]
        ours = [one for one in active if one.type == "image" and one.attrGet("src") == "report.png"]
        assert len(ours) == images
        assert [one.type for one in active if one not in ours] == []
        assert [
            one.content
            for one in self.inline
            if one.type == "text" and BARE_LINK.search(one.content)
        ] == []

    @property
    def text(self) -> str:
        return "".join(one.content for one in self.inline)

    @property
    def rows(self) -> list[list[str]]:
        """The cells of all tables, as they are read."""
        found: list[list[str]] = []
        cell = False
        for token in self.tokens:
            match token.type:
                case "tr_open":
                    found.append([])
                case "th_open" | "td_open":
                    cell = True
                case "inline" if cell:
                    found[-1].append("".join(one.content for one in token.children or ()))
                    cell = False
        return found
