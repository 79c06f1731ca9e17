"""Untrusted text on a terminal."""

from rich.markup import escape

from mohe_assets.text.cleaning import one_line


def shown(text: str) -> str:
    """Return rich markup that shows the text literally; rows of earlier versions may hold control
    characters.
    """
    return escape(one_line(text))
