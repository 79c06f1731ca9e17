"""Dagster's web server behind a middleware that refuses requests that other sites make a browser
send.

Dagster's server executes GraphQL from GET requests and form posts and checks neither Origin nor
Host, so any page in the user's browser could launch and delete runs. Other clients send no Origin
and are served as before.
"""

import ipaddress
from collections.abc import Callable, Collection
from typing import Any

import click
from dagster_webserver import cli
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mohe_assets import settings
from mohe_assets.clients.base_url import is_loopback
from mohe_assets.defs.runtime import console_logger
from mohe_assets.errors import SettingsError

ANY_HOST = "*"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
READING = ("GET", "HEAD")
# Values of Sec-Fetch-Site that pass: `none` is an address typed by the user. Old browsers and other
# clients send no such header.
OWN_SITES = ("same-origin", "none")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# A foreign page must not show this page in a frame, where the user could be made to click on it.
FRAMES = "frame-ancestors 'self'"


def main() -> None:
    """Serve the page; the arguments are those of `dagster-webserver`."""
    console_logger.use_for_processes()
    cli.create_app_from_workspace_process_context = _guarded  # type: ignore[attr-defined]
    # The prefix is the same as in Dagster's entry point.
    cli.dagster_webserver.main(auto_envvar_prefix="DAGSTER_WEBSERVER", prog_name="web-server")


_create_app = cli.create_app_from_workspace_process_context  # type: ignore[attr-defined]


def _guarded(*arguments: Any, **options: Any) -> Starlette:  # noqa: ANN401 - Dagster's own
    app: Starlette = _create_app(*arguments, **options)
    given = click.get_current_context().params
    try:
        known = settings.load()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    hosts = known.web_hosts
    is_ours = reachable_as(known.web_address or given["host"], hosts)
    app.add_middleware(SameSite, is_ours=is_ours, origins=hosts, prefix=given["path_prefix"])
    return app


def reachable_as(address: str, configured: Collection[str]) -> Callable[[str], bool]:
    """Return the check of a Host header for a server at `address`.

    On a loopback address only names of this machine and configured names pass: by any other name
    that resolves to it, a browser takes a foreign page for a page of this server (DNS rebinding).
    On other addresses every name passes unless some are configured; addresses pass then as well,
    since only a name can be made to resolve to this host.
    """
    names = LOOPBACK_NAMES | {_without_port(one) for one in configured}
    loopback = is_loopback(address)

    def is_ours(host: str) -> bool:
        name = _without_port(host)
        if name in names or ANY_HOST in names:
            return True
        return not loopback and (not configured or _is_address(name))

    return is_ours


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class SameSite:
    """Refuse requests that a page of another site makes a browser send, with a sentence.

    `is_ours` checks a Host header. `origins` are hosts whose pages are accepted although the Host
    header differs, because a proxy replaces it. `prefix` is the path below which Dagster serves.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        is_ours: Callable[[str], bool],
        origins: Collection[str] = (),
        prefix: str = "",
    ) -> None:
        self.app = app
        self.is_ours = is_ours
        self.origins = frozenset(origins)
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, 405 or 415, or pass the request on."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None:
            await self.app(scope, receive, _with_frame_rule(send))
        else:
            # A handshake is answered like a request: uvicorn has the extension for that.
            status, sentence = refusal
            await PlainTextResponse(f"{sentence}\n", status_code=status)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = [one.lower() for one in headers.getlist("host")]
        if foreign := [one for one in hosts if not self.is_ours(one)]:
            return 403, (
                f"The Host header is {foreign[0]!r}, which is not a name of this server; "
                "if the page is reached by that name, set MOHE_WEB_HOSTS to it."
            )
        path, method = scope["path"].removeprefix(self.prefix), scope.get("method")
        writing = path.rstrip("/") == "/graphql" or path.startswith("/report_asset_")
        if method in READING and not writing:
            return None
        if sentence := self._foreign_page(headers, hosts):
            return 403, sentence
        if method in READING and scope["query_string"]:
            return 405, "Nothing is executed by GET; send it by POST as application/json."
        types = [one.partition(";")[0].strip().lower() for one in headers.getlist("content-type")]
        if method == "POST" and types != ["application/json"]:
            return 415, "Only requests with Content-Type: application/json are accepted here."
        return None

    def _foreign_page(self, headers: Headers, hosts: list[str]) -> str | None:
        for origin in headers.getlist("origin"):
            if not self._is_same(origin, hosts):
                return (
                    f"The request comes from a page of {origin!r}, which is not this server; if "
                    "that is a proxy before it, let the proxy hand on the browser's Host header, "
                    "or set MOHE_WEB_HOSTS to the host in the browser."
                )
        for site in headers.getlist("sec-fetch-site"):
            if site.lower() not in OWN_SITES:
                return f"The request comes from a page of another site (Sec-Fetch-Site: {site!r})."
        return None

    def _is_same(self, origin: str, hosts: list[str]) -> bool:
        scheme, _, authority = origin.lower().partition("://")
        default = DEFAULT_PORTS.get(scheme)
        if default is None:  # such as "null"
            return False
        authority = authority.removesuffix(default)
        here = [one.removesuffix(default) for one in hosts]
        return here == [authority] or authority in self.origins


def _without_port(host: str) -> str:
    """Return ::1 for `[::1]:3000`, and name for `name:3000` and `name`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _with_frame_rule(send: Send) -> Send:
    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("Content-Security-Policy", FRAMES)
        await send(message)

    return send_on


if __name__ == "__main__":
    main()
