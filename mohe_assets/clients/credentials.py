"""The keys of the APIs: put into a request at the last moment, and kept out of messages and of urllib3's log."""

import logging
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

SHORTEST_SECRET = 8  # real keys have ten characters and more; a shorter word might be a part of a place's name


class Credentials:
    """The keys as headers and parameters, added to a request at the last moment: no message of ours ever holds them."""

    headers: Mapping[str, str] = {}
    parameters: Mapping[str, str] = {}

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _spellings(secret) if len(form) >= SHORTEST_SECRET}
        longest_first = sorted(forms, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._in_text = re.compile(pattern, re.IGNORECASE)
        self._in_bytes = re.compile(pattern.encode(), re.IGNORECASE)

    def mask(self, text: str) -> str:
        """Replace every spelling of the keys: a server or proxy may echo the request in its error."""
        return self._in_text.sub("***", text)

    def mask_body(self, body: bytes) -> bytes:
        """The same for a body that nobody has read yet, so that no variable of its readers can hold a key."""
        return self._in_bytes.sub(b"***", body)


class HeaderCredentials(Credentials):
    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers.values())
        self.headers = dict(headers)


class QueryCredentials(Credentials):
    """A key that travels in the query string. A value with a `%` is the portal's encoded form and is decoded once."""

    def __init__(self, parameter: str, configured: str) -> None:
        super().__init__((configured,))
        # A key is Base64, which has no percent sign: one that has it was copied in its encoded form.
        self.parameters = {parameter: unquote(configured) if "%" in configured else configured}


class _KeylessUrls(logging.Filter):
    """urllib3 logs whole URLs at DEBUG; the key is taken out of the record before any handler sees it."""

    _key = re.compile(r"(servicekey=)[^&\s'\"]+", re.IGNORECASE)

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if self._key.search(text):
            record.msg, record.args = self._key.sub(r"\1***", text), ()
        return True


_KEYLESS_URLS = _KeylessUrls()


def keep_keys_out_of_the_log() -> None:
    """Filter the loggers that urllib3 writes URLs to; calling it again changes nothing."""
    for name in ("connection", "connectionpool", "poolmanager", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_KEYLESS_URLS)


def _spellings(secret: str) -> set[str]:
    plain = unquote(secret)
    spellings = {secret, plain, quote(secret, safe=""), quote(plain, safe=""), quote(plain)}
    return spellings | {spelling.replace("/", r"\/") for spelling in spellings}  # the APIs' JSON escapes slashes
