"""Debian's Chromium, as the browser tests start it."""

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Generous: two cores run the page, three of Dagster's processes, the database and the simulator.
PATIENCE_MS = 90_000
