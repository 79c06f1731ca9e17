"""What assets, sensors and jobs are given: the settings of the environment, and a platform on them
when one is opened.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.errors import DatabaseUnavailable, OriginMismatch, RegionListRefused, SettingsError
from mohe_assets.text.cleaning import markdown


class MoheResource(dg.ConfigurableResource["MoheResource"]):
    """Opens a `Platform` for the time of one run or tick.

    `environment` overrides single variables, for tests and for code locations that share a process.
    """

    environment: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it

    @contextmanager
    def open(self, *, wait: bool = True) -> Iterator[App]:
        """A platform; what keeps one from being opened ends the run with that sentence and no
        traceback of ours.

        A run waits for a database that restarts, a tick does not: the next one comes in seconds.
        """
        try:
            settings = settings_module.load(self._environ())
            with App.open(settings, wait=wait) as app:
                yield app
        except (SettingsError, DatabaseUnavailable, OriginMismatch, RegionListRefused) as error:
            raise dg.Failure(description=markdown(str(error)), allow_retries=False) from None

    def _environ(self) -> Mapping[str, str]:
        return {**settings_module.process_environment(), **self.environment}
