"""A page of another site in a real browser sends commands to a `mohe up`; nothing happens."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, expect

from mohe_assets_tests.support.chromium import PATIENCE_MS
from mohe_assets_tests.support.ui import Up

pytestmark = pytest.mark.browser

# All ways of a page to send the same command and to report an event; it shows when all ended.
FOREIGN = """<!doctype html><title>waiting</title><body>
<iframe name="sink"></iframe>
<iframe id="framed" src="%(url)s/overview"></iframe>
<form method="post" enctype="text/plain" target="sink"
      action="%(url)s/graphql?query=%(mutation)s"><input name="x" value="y"></form>
<form method="post" target="sink" action="%(url)s/report_asset_materialization/places"></form>
<script>
const url = "%(url)s", mutation = "%(mutation)s", results = [];
const done = (name, outcome) => results.push(name + ": " + outcome);
const image = new Promise(end => {
  const one = new Image();
  one.onload = one.onerror = event => { done("image", event.type); end(); };
  one.src = url + "/graphql?query=" + mutation;
});
const socket = new Promise(end => {
  const one = new WebSocket(url.replace("http", "ws") + "/graphql", "graphql-ws");
  one.onopen = () => { done("socket", "open"); end(); };
  one.onerror = () => { done("socket", "error"); end(); };
});
const send = (name, path, options) => fetch(url + path, options)
  .then(answer => done(name, answer.type), () => done(name, "error"));
const json = JSON.stringify({query: decodeURIComponent(mutation)});
document.forms[0].submit();
document.forms[1].submit();
const post = {method: "POST", mode: "no-cors"};
Promise.all([
  image, socket,
  send("text", "/graphql", {...post, body: json}),
  send("query", "/graphql?query=" + mutation, post),
  send("link", "/graphql?query=" + mutation, {mode: "no-cors"}),
  send("json", "/graphql", {method: "POST", body: json,
  headers: {"Content-Type": "application/json"}}),
  send("report", "/report_asset_materialization/places", post),
]).then(() => setTimeout(() => {
  document.body.append(results.sort().join("\\n"));
  document.title = "ended";
}, 1000));
</script>"""
# Read by the page's own GraphQL before and after.
STATE = """{ runsOrError { ... on Runs { results { runId } } }
    assetNodeOrError(assetKey: {path: ["places"]}) { ... on AssetNode { assetMaterializations
    { timestamp } } }
    repositoriesOrError { ... on RepositoryConnection { nodes { schedules { name scheduleState
    { status } } } } } }"""
MUTATION = (
    'mutation{startSchedule(scheduleSelector:{repositoryLocationName:"mohe_assets",'
    'repositoryName:"__repository__",scheduleName:"%s"}){__typename}}'
)


class Elsewhere(BaseHTTPRequestHandler):
    """Another site's server."""

    def __init__(self, text: str, *arguments: object) -> None:
        self.text = text
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer every address with the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving(text: str) -> Iterator[str]:
    """The page at an origin of its own: another port of this machine is another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Elsewhere, text)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_page_of_another_site_has_no_effect_and_the_own_page_works(up: Up, page: Page) -> None:
    before = up.ui.ask(STATE)
    (nodes,) = before["repositoriesOrError"]["nodes"]
    stopped = [
        one["name"] for one in nodes["schedules"] if one["scheduleState"]["status"] == "STOPPED"
    ]
    assert stopped, "one that a command could start"
    mutation = MUTATION % stopped[0]
    escaped = mutation.replace("{", "%7B").replace("}", "%7D").replace('"', "%22")
    with serving(FOREIGN % {"url": up.ui.url, "mutation": escaped}) as elsewhere:
        page.goto(elsewhere)
        expect(page).to_have_title("ended", timeout=PATIENCE_MS)
        body = page.locator("body").inner_text()
    for outcome in ("image: error", "socket: error", "json: error", "text: opaque"):
        assert outcome in body
    assert up.ui.ask(STATE) == before
    assert [frame.url for frame in page.frames if "/overview" in frame.url] == [], "in no frame"

    # The same command from the own page does it, and the page follows it.
    page.goto(f"{up.ui.url}/overview/schedules")
    expect(page.get_by_text(stopped[0]).first).to_be_visible(timeout=PATIENCE_MS)
    sent = (
        "query => fetch('/graphql', {method: 'POST', body: JSON.stringify({query}), "
        "headers: {'Content-Type': 'application/json'}}).then(answer => answer.status)"
    )
    assert page.evaluate(sent, mutation) == 200
    assert up.ui.ask(STATE) != before
