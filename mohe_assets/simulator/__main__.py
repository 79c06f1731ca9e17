"""`python -m mohe_assets.simulator --port 0 --config '{"seed": 2}'`: what `running` starts."""

import argparse
import sys

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import LISTENING, serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mohe_assets.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", default="{}", help="fields of SimulatorConfig as JSON")
    options = parser.parse_args()

    def announce(url: str) -> None:
        sys.stdout.write(f"{LISTENING}{url}\n")
        sys.stdout.flush()

    config = SimulatorConfig.from_json(options.config)
    serve(config, port=options.port, announce=announce, until_stdin_ends=True)


if __name__ == "__main__":
    main()
