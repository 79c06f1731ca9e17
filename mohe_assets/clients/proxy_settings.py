"""What the environment says about the way to a server: its proxy and the certificates to trust, as
requests understands it.
"""

import ssl
from contextlib import suppress
from pathlib import Path

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from yarl import URL

from mohe_assets.clients.exchange import NoResponse


def proxy_settings(base_url: str) -> tuple[URL | None, ssl.SSLContext | None]:
    """The proxy and the certificates that the environment names for this server, as requests
    understands it.
    """
    with requests.Session() as session:
        found = session.merge_environment_settings(base_url, {}, None, None, None)
    proxy = select_proxy(base_url, found["proxies"])
    return _proxy(proxy) if proxy else None, _tls(found["verify"]) if base_url.startswith(
        "https:"
    ) else None


def _proxy(configured: str) -> URL:
    with suppress(ValueError):
        url = URL(configured if "://" in configured else f"http://{configured}")
        if url.scheme in {"http", "https"} and url.host:
            return url
    # It is not shown: there may be a password in it.
    raise NoResponse("the proxy that the environment names is not one for HTTP", signature="proxy")


def _tls(verify: object) -> ssl.SSLContext:
    """`verify` is the path of a bundle or a folder that takes the place of all other certificates,
    or True.
    """
    if isinstance(verify, str):
        folder = Path(verify).is_dir()
        return ssl.create_default_context(
            cafile=None if folder else verify, capath=verify if folder else None
        )
    context = ssl.create_default_context()
    # The system's own may be missing, as in a slim container.
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context
