"""The clock of an HTTP server."""

import datetime as dt
from email.utils import parsedate_to_datetime

import requests

TIMEOUT_SECONDS = 5.0


def seconds_ahead(base_url: str) -> float | None:
    """Return how far the server's clock is ahead of this host's, by the Date of its response.

    The request carries no key. Return None if there is no response or no date in it.
    """
    try:
        response = requests.head(base_url, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        moment = parsedate_to_datetime(response.headers["Date"])
    except (requests.RequestException, KeyError, ValueError):
        return None
    # A date has whole seconds, rounded down.
    return (moment - dt.datetime.now(dt.UTC)).total_seconds() + 0.5
