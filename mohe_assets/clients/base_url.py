"""Base URLs of the APIs: their check, and whether they lead to this host."""

import ipaddress
import re
from urllib.parse import urlsplit

# A host name or bracketed IPv6 address, with an optional port.
HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")


def checked_base_url(value: str) -> str:
    """Return scheme://host[:port]; raises ValueError for anything more or less.

    The message does not repeat the value: a longer URL may contain a key or a password.
    """
    try:
        parts = urlsplit(value.strip())
        is_host = bool(HOST.fullmatch(parts.netloc)) and parts.port != 0
    except ValueError:
        is_host = False
    if not (is_host and parts.scheme in {"http", "https"} and parts.path in {"", "/"}) or (
        parts.query or parts.fragment
    ):
        raise ValueError("has to be http(s)://host[:port] and nothing more")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Whether only this host can reach `host`."""
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
