"""What a simulator is told: limits, credentials, how nasty it is. Values only, checked when they
are made.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """`None` for a limit means that there is none; shares are between 0 and 1.

    `warm` makes all places before the first call is taken: made one district at a time they would
    hold answers up by as much as a tenth of a second, which a client under a rate limit pays for.

    `calls_per_second`, `daily_quota` and `monthly_quota` are those of the place search and hold for
    either generation; only the HUB has a monthly quota. `round` is the day of the world: at 0
    nothing drifts.

    `classic_ended`: the classic search answers as a retired API does. `search_not_selected`: the
    application of the keys lacks the place search.
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
        """Refuse with a sentence that names the value."""
        object.__setattr__(self, "region_edits", tuple(self.region_edits))
        for field in dataclasses.fields(self):
            if sentence := _complaint(field.name, getattr(self, field.name), field.default):
                raise ValueError(sentence)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(changes) - known):
            raise ValueError(
                f"{', '.join(unknown)}: no such simulator setting; there are {', '.join(sorted(known))}"
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


def _complaint(name: str, value: Any, default: Any) -> str:  # noqa: ANN401 - whatever JSON or a caller gives
    """Why the value cannot be used; empty when it can."""
    if name == "region_edits":
        return (
            ""
            if all(isinstance(edit, Mapping) for edit in value)
            else f"{name} must be a list of objects"
        )
    if isinstance(default, str):
        return (
            "" if isinstance(value, str) and value else f"{name} must be a text that is not empty"
        )
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"{name} must be true or false; it is {value!r}"
    if name in _LIMITS:
        good = value is None or (_is_number(value, whole=True) and value >= 0)
        return (
            ""
            if good
            else f"{name} must be a whole number from 0 up, or null for no limit; it is {value!r}"
        )
    return _number_complaint(name, value)


def _number_complaint(name: str, value: Any) -> str:  # noqa: ANN401 - as above
    whole = name in _WHOLE
    if not _is_number(value, whole=whole):
        return f"{name} must be a {'whole ' if whole else ''}number; it is {value!r}"
    if name.endswith("_share"):
        return "" if 0 <= value <= 1 else f"{name} must be between 0 and 1; it is {value!r}"
    return (
        ""
        if name == "seed" or 0 <= value < float("inf")
        else f"{name} must be 0 or more; it is {value!r}"
    )


def _is_number(value: object, *, whole: bool) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
