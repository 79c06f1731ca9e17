"""`mohe simulate`: both APIs on this machine, for a demo or a rehearsal without keys."""

from typing import Annotated

import typer

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import LISTENING, serve


def simulate(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8900,
    calls_per_second: Annotated[
        int, typer.Option(min=0, help="Place searches a second; 0: no limit.")
    ] = 10,
    daily_quota: Annotated[
        int, typer.Option(min=0, help="Place searches a KST day; 0: no limit.")
    ] = 25_000,
    monthly_quota: Annotated[
        int, typer.Option(min=0, help="API HUB searches a month; 0: no limit.")
    ] = 775_000,
    region_calls_per_second: Annotated[
        int, typer.Option(min=0, help="Region calls a second; 0: no limit.")
    ] = 30,
    region_quota: Annotated[
        int, typer.Option(min=0, help="Region calls a KST day; 0: no limit.")
    ] = 10_000,
    latency_ms: Annotated[float, typer.Option(min=0, help="Milliseconds before every answer.")] = 0,
    latency_jitter_ms: Annotated[
        float, typer.Option(min=0, help="Random extra milliseconds, up to this.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(help="Number of the made-up country; equal numbers, equal places.")
    ] = 1,
    round_number: Annotated[
        int,
        typer.Option(
            "--round", min=0, help="Number of the day; rankings and addresses change by day."
        ),
    ] = 0,
) -> None:
    """Run both APIs on this machine, the region list and the place search, with their limits and
    faults.

    The places are made up. Prints its address and the variables to export, and runs until
    interrupted. POST /_control/faults, /_control/clock and /_control/config set up faults; GET
    /_control/stats returns the counts.
    """
    try:
        config = SimulatorConfig(
            warm=True,
            seed=seed,
            round=round_number,
            calls_per_second=calls_per_second or None,
            daily_quota=daily_quota or None,
            monthly_quota=monthly_quota or None,
            region_calls_per_second=region_calls_per_second or None,
            region_daily_quota=region_quota or None,
            latency_ms=latency_ms,
            latency_jitter_ms=latency_jitter_ms,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _serve(config, host, port)


def _serve(config: SimulatorConfig, host: str, port: int) -> None:
    def announce(url: str) -> None:
        typer.echo(_announcement(config, url))

    try:
        serve(config, host, port, announce=announce)
    except OSError as error:
        # The system's text, without the address that `socket` adds.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        typer.echo(f"The simulator cannot listen on {host} port {port}: {reason}.", err=True)
        raise typer.Exit(1) from error


def _announcement(config: SimulatorConfig, url: str) -> str:
    variables = {
        "MOHE_GOVERNMENT_API_URL": url,
        "MOHE_NAVER_API_URL": url,
        "MOHE_NAVER_HUB_URL": url,
        "GOVT_API_KEY": config.government_key,
        "NAVER_CLIENT_ID": config.client_id,
        "NAVER_CLIENT_SECRET": config.client_secret,
    }
    exports = (f"export {name}='{value}'" for name, value in variables.items())
    hub = (
        f"# for the API HUB instead: NCP_APIGW_API_KEY_ID='{config.hub_key_id}' "
        f"NCP_APIGW_API_KEY='{config.hub_key}'"
    )
    return "\n".join([f"{LISTENING}{url}", *exports, hub])
