"""The resource of assets, sensors and jobs: settings from the environment, and an `App` on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.defs.runtime.names import keys_under
from mohe_assets.errors import DatabaseUnavailable, OriginMismatch, RegionListRefused, SettingsError
from mohe_assets.settings import Settings
from mohe_assets.text.cleaning import markdown

REFUSALS = (DatabaseUnavailable, OriginMismatch, RegionListRefused)
TickResult = dg.SensorResult | dg.SkipReason


class MoheResource(dg.ConfigurableResource["MoheResource"]):
    """Opens an `App` for the duration of one run or tick.

    `environment` overrides single variables, for tests and for code locations that share a process.
    `key_prefix` is the prefix of the asset keys, see `build_defs`.
    """

    environment: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    key_prefix: list[str] = []  # noqa: RUF012 - as above

    @contextmanager
    def open(self) -> Iterator[App]:
        """Open an `App`, waiting for a database that restarts.

        If it cannot be opened, the run fails with the reason and without a traceback.
        """
        try:
            with self._open(self._settings(), wait=True) as app:
                yield app
        except (SettingsError, *REFUSALS) as error:
            raise _failure(error) from None

    def tick(self, evaluate: Callable[[App], TickResult]) -> TickResult:
        """Evaluate a tick, or skip it with the reason if a setting is missing or invalid.

        The tick does not wait for a database that restarts: the next tick comes in seconds.
        Without keys the database is neither opened nor started.
        """
        try:
            settings = self._settings()
            settings.require_place_keys()
            with self._open(settings, wait=False) as app:
                return evaluate(app)
        except SettingsError as error:
            return dg.SkipReason(str(error))
        except REFUSALS as error:
            raise _failure(error) from None

    @contextmanager
    def _open(self, settings: Settings, *, wait: bool) -> Iterator[App]:
        with keys_under(self.key_prefix), App.open(settings, wait=wait) as app:
            yield app

    def _settings(self) -> Settings:
        return settings_module.load({**settings_module.process_environment(), **self.environment})


def _failure(error: Exception) -> dg.Failure:
    return dg.Failure(description=markdown(str(error)), allow_retries=False)
