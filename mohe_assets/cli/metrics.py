"""`mohe metrics`: metrics of the collection for Prometheus."""

import signal
import threading
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, start_http_server

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.errors import MoheError
from mohe_assets.ops.metrics import CollectionMetrics
from mohe_assets.postgres.databases import resolve_urls

METRICS_PORT = 9464


def metrics(
    *,
    host: Annotated[
        str, typer.Option(help="Address to serve on; the page has no login of its own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = METRICS_PORT,
) -> None:
    """Serve /metrics until interrupted; each scrape reads the database. docs/metrics.md describes
    the metrics.
    """
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    settings = settings_module.load()
    embedded = resolve_urls(settings).embedded
    if embedded is not None:
        embedded.require_ours()  # else every scrape would fail
    with App.attached(settings) as app:
        registry = CollectorRegistry()
        registry.register(CollectionMetrics(app))
        try:
            server, thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise MoheError(
                f"Port {port} of {host} cannot be used ({error.strerror}); "
                "choose another port with --port."
            ) from None
        typer.echo(f"Metrics are at http://{host}:{port}/metrics; Ctrl-C stops serving.")
        over.wait()
        server.shutdown()
        server.server_close()
        thread.join()
