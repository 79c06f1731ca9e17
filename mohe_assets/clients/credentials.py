"""The keys of the APIs: put into a request at the last moment, and kept out of messages."""

import logging
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from mohe_assets.errors import SettingsError

logger = logging.getLogger(__name__)

_QUOTES = "\"'`“”‘’"
# Times that a key is decoded: the portal's form is encoded once, a copy of that in a URL twice.
MAX_ENCODINGS = 3
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
    """A key of data.go.kr, which travels in the query string."""

    def __init__(self, parameter: str, configured: str, *, variable: str) -> None:
        key = portal_key(configured, variable)
        super().__init__((configured.strip(), key))
        self.parameters = {parameter: key}


def portal_key(configured: str, variable: str) -> str:
    """The plain key, whichever of its forms is configured; SettingsError for what cannot be one.

    A key is Base64, which has no percent sign: a value that has one was copied in an encoded form.
    """
    key, decodings = plain_key(configured, variable), 0
    while "%" in key and decodings < MAX_ENCODINGS:
        key, decodings = unquote(key, errors="replace"), decodings + 1
    if decodings > 1:
        logger.warning("%s is percent-encoded more than once; it is used decoded.", variable)
    if "%" in key or not _is_sendable(key):
        raise SettingsError(
            f"{variable} is no key of data.go.kr: copy its Encoding or Decoding form again"
        )
    return key


def plain_key(configured: str, variable: str) -> str:
    """The key without the quotes around it, which a shell removes and an env file of Docker keeps.

    It is checked here: the HTTP library would put a value that it cannot send into its exception.
    """
    key = configured.strip()
    bare = key.strip(_QUOTES).strip()
    if bare != key:
        logger.warning("%s has quotes around it; it is used without them.", variable)
    if not _is_sendable(bare):
        raise SettingsError(
            f"{variable} must be printable ASCII without spaces, as the console shows it"
        )
    return bare


def _is_sendable(key: str) -> bool:
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _spellings(secret: str) -> set[str]:
    plain = unquote(secret)
    spellings = {secret, plain, quote(secret, safe=""), quote(plain, safe=""), quote(plain)}
    return spellings | {
        spelling.replace("/", r"\/") for spelling in spellings
    }  # the APIs' JSON escapes slashes
