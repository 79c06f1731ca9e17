"""Proxy and trusted certificates for a server, read from the environment with requests' rules."""

import ssl
from contextlib import suppress
from pathlib import Path

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from yarl import URL

from mohe_assets.clients.exchange import NoResponse


def proxy_settings(base_url: str) -> tuple[URL | None, ssl.SSLContext | None]:
    """Return the proxy and, for https, the TLS context of a server; None: no proxy, no TLS.

    Raises NoResponse for a proxy that is not an HTTP proxy.
    """
    with requests.Session() as session:
        settings = session.merge_environment_settings(base_url, {}, None, None, None)
    proxy, context = None, None
    if configured := select_proxy(base_url, settings["proxies"]):
        with suppress(ValueError):
            proxy = URL(configured if "://" in configured else f"http://{configured}")
        if proxy is None or proxy.scheme not in {"http", "https"} or not proxy.host:
            # Without the value, which may contain a password.
            raise NoResponse(
                "the proxy that the environment names is not one for HTTP", signature="proxy"
            )
    verify = settings["verify"]  # True, or the path of the only bundle or folder to trust
    if base_url.startswith("https:") and isinstance(verify, str):
        folder = Path(verify).is_dir()
        context = ssl.create_default_context(
            cafile=None if folder else verify, capath=verify if folder else None
        )
    elif base_url.startswith("https:"):
        context = ssl.create_default_context()
        # The system's certificates may be missing, as in a slim container.
        context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return proxy, context
