"""Settings of a simulator: limits, credentials, shares of odd answers. Checked on creation."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """Settings; None as a limit means unlimited, shares are between 0 and 1.

    `warm` creates all places before the first call: creating a district takes up to 0.1 s, which
    would delay answers. `calls_per_second`, `daily_quota` and `monthly_quota` limit the place
    search of both versions; only the HUB has a monthly quota. `round` is the age of the world in
    days; at 0 nothing has changed. `classic_ended`: the classic search answers like a retired API.
    `search_not_selected`: the application of the keys has no place search.
    """

    seed: int = 1
    round: int = 0
    warm: bool = False

    government_key: str = "demo-govt-key+/=="
    client_id: str = "demo-client-id"
    client_secret: str = "demo-client-secret"  # noqa: S105 - a recognisable fake
    hub_key_id: str = "demo-hub-key-id"
    hub_key: str = "demo-hub-key"

    calls_per_second: int | None = 10
    daily_quota: int | None = 25_000
    monthly_quota: int | None = 775_000
    region_calls_per_second: int | None = 30
    region_daily_quota: int | None = 10_000
    refused_calls_count: bool = False
    quota_reset_delay_seconds: float = 0

    classic_ended: bool = False
    search_not_selected: bool = False

    latency_ms: float = 0
    latency_jitter_ms: float = 0

    stray_share: float = 0.12
    katech_share: float = 0.025
    place_name_share: float = 0.03

    region_edits: tuple[Mapping[str, Any], ...] = ()
    region_short_by: int = 0
    region_duplicates: int = 0
    region_totals_disagree: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError with a sentence that names the first bad value."""
        object.__setattr__(self, "region_edits", tuple(self.region_edits))
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            whole = name in _WHOLE or name in _LIMITS
            is_number = isinstance(value, int if whole else (int, float))
            is_number = is_number and not isinstance(value, bool)
            if name == "region_edits":
                is_good, rule = (
                    all(isinstance(edit, Mapping) for edit in value),
                    "a list of objects",
                )
            elif isinstance(field.default, str):
                is_good, rule = isinstance(value, str) and bool(value), "a text that is not empty"
            elif isinstance(field.default, bool):
                is_good, rule = isinstance(value, bool), "true or false"
            elif name in _LIMITS:
                is_good = value is None or (is_number and value >= 0)
                rule = "a whole number from 0 up, or null for no limit"
            elif not is_number:
                is_good, rule = False, "a whole number" if whole else "a number"
            elif name.endswith("_share"):
                is_good, rule = 0 <= value <= 1, "between 0 and 1"
            else:
                is_good, rule = name == "seed" or 0 <= value < float("inf"), "0 or more"
            if not is_good:
                raise ValueError(f"{name} must be {rule}; it is {value!r}")

    def changed(self, changes: Mapping[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(changes) - known):
            raise ValueError(
                f"{', '.join(unknown)}: no such simulator setting; "
                f"there are {', '.join(sorted(known))}"
            )
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls().changed(json.loads(text))


_LIMITS = {
    "calls_per_second",
    "daily_quota",
    "monthly_quota",
    "region_calls_per_second",
    "region_daily_quota",
}
_WHOLE = {"seed", "round", "region_short_by", "region_duplicates"}
