"""Keys of the APIs: added to a request when it is sent, and masked in all messages."""

import logging
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from mohe_assets.errors import SettingsError

logger = logging.getLogger(__name__)

_QUOTES = "\"'`“”‘’"
# Percent-decodings of a key: the portal's encoded form needs 1, a copy of it in a URL 2.
MAX_ENCODINGS = 3
# Characters. Real keys have 10 and more; a shorter word could be part of a place's name.
SHORTEST_SECRET = 8


class Credentials:
    """The keys as headers and parameters of a request, and the masking of their spellings."""

    headers: Mapping[str, str] = {}
    parameters: Mapping[str, str] = {}

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings: set[str] = set()
        for secret in secrets:
            plain = unquote(secret)
            spellings |= {secret, plain, quote(secret, safe=""), quote(plain, safe="")}
            spellings.add(quote(plain))
        # The APIs' JSON escapes slashes.
        spellings |= {spelling.replace("/", r"\/") for spelling in spellings}
        forms = {spelling for spelling in spellings if len(spelling) >= SHORTEST_SECRET}
        longest_first = sorted(forms, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._in_text = re.compile(pattern, re.IGNORECASE)
        self._in_bytes = re.compile(pattern.encode(), re.IGNORECASE)
        self._lowered = [form.encode().lower() for form in forms]

    def mask(self, text: str) -> str:
        """Replace every spelling of the keys; a server may echo the request in its error."""
        return self._in_text.sub("***", text)

    def mask_body(self, body: bytes) -> bytes:
        """Mask a body before it is parsed, so that no parsed value contains a key."""
        lowered = body.lower()
        # Usually there is none; this test takes a fifth of the time of the expression.
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
    """A key of data.go.kr, sent in the query string."""

    def __init__(self, parameter: str, configured: str, *, variable: str) -> None:
        key = portal_key(configured, variable)
        super().__init__((configured.strip(), key))
        self.parameters = {parameter: key}


def portal_key(configured: str, variable: str) -> str:
    """Return the decoded key of either form. Raises SettingsError for a value that is no key.

    A key is Base64 without percent signs: a value with a percent sign is an encoded form.
    """
    key, decodings = plain_key(configured, variable), 0
    while "%" in key and decodings < MAX_ENCODINGS:
        key, decodings = unquote(key, errors="replace"), decodings + 1
    if decodings > 1:
        logger.warning("%s is percent-encoded more than once; it is used decoded.", variable)
    if "%" in key or not is_sendable(key):
        raise SettingsError(
            f"{variable} is no key of data.go.kr: copy its Encoding or Decoding form again"
        )
    return key


def plain_key(configured: str, variable: str) -> str:
    """Return the key without quotes around it, which Docker keeps from an env file.

    Raises SettingsError for other than printable ASCII: the HTTP library's exception would contain
    the key.
    """
    key = configured.strip()
    bare = key.strip(_QUOTES).strip()
    if bare != key:
        logger.warning("%s has quotes around it; it is used without them.", variable)
    if not is_sendable(bare):
        raise SettingsError(
            f"{variable} must be printable ASCII without spaces, as the console shows it"
        )
    return bare


def is_sendable(key: str) -> bool:
    """Whether a key is printable ASCII without spaces, as all keys of the APIs are."""
    return bool(key) and key.isascii() and key.isprintable() and " " not in key
