"""The keys of the APIs: put into a request at the last moment, and kept out of messages."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

SHORTEST_SECRET = (
    8  # real keys have ten characters and more; a shorter word might be a part of a place's name
)


class Credentials:
    """The keys as headers and parameters, added to a request at the last moment: no message of ours
    ever holds them.
    """

    headers: Mapping[str, str] = {}
    parameters: Mapping[str, str] = {}

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form
            for secret in secrets
            for form in _spellings(secret)
            if len(form) >= SHORTEST_SECRET
        }
        longest_first = sorted(forms, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._in_text = re.compile(pattern, re.IGNORECASE)
        self._in_bytes = re.compile(pattern.encode(), re.IGNORECASE)
        self._lowered = [form.encode().lower() for form in forms]

    def mask(self, text: str) -> str:
        """Replace every spelling of the keys: a server or proxy may echo the request in its error."""
        return self._in_text.sub("***", text)

    def mask_body(self, body: bytes) -> bytes:
        """The same for a body that nobody has read yet, so that no variable of its readers can hold
        a key.
        """
        lowered = body.lower()
        # The usual case is none, and to see that takes a fifth of the time that the expression
        # does.
        return (
            self._in_bytes.sub(b"***", body)
            if any(form in lowered for form in self._lowered)
            else body
        )


class HeaderCredentials(Credentials):
    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers.values())
        self.headers = dict(headers)


class QueryCredentials(Credentials):
    """A key that travels in the query string. A value with a `%` is the portal's encoded form and
    is decoded once.
    """

    def __init__(self, parameter: str, configured: str) -> None:
        super().__init__((configured,))
        # A key is Base64, which has no percent sign: one that has it was copied in its encoded
        # form.
        self.parameters = {parameter: unquote(configured) if "%" in configured else configured}


def _spellings(secret: str) -> set[str]:
    plain = unquote(secret)
    spellings = {secret, plain, quote(secret, safe=""), quote(plain, safe=""), quote(plain)}
    return spellings | {
        spelling.replace("/", r"\/") for spelling in spellings
    }  # the APIs' JSON escapes slashes
