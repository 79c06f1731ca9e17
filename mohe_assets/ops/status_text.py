"""Texts that `mohe status`, `mohe plan` and the report share: times, calls left, and the quota."""

from collections.abc import Callable

from mohe_assets.domain.forecast import NEVER, Forecast
from mohe_assets.domain.kst import to_minute
from mohe_assets.store.api_state import ApiState
from mohe_assets.store.checkpoints import Progress
from mohe_assets.store.origin import Mismatch


def done_when(found: Forecast, waiting: str | None = None) -> str:
    """Return `done`, `never`, the time of the end, or why no call is made now."""
    if not found.calls:
        return "done"
    if waiting:
        return waiting
    return "never" if found.done_at == NEVER else to_minute(found.done_at)


def waits_for(state: ApiState | None, *, mismatch: Mismatch | None = None) -> str | None:
    """Return why no call is made now; a used-up quota is part of every forecast instead."""
    if mismatch is not None:
        return "the data is of another origin than the keys"
    if state is None:
        return "no keys are set"
    if state.blocked_why:
        return "the API is blocked"
    return "the API is unavailable" if state.unavailable_since else None


def given_up_sentence(regions: int, calls: int, refinements: int) -> str:
    """Return what errors ended, and the command that resumes it; "" if errors ended nothing."""
    parts = []
    if regions:
        parts.append(f"{regions:,} region{'s' * (regions != 1)} with {calls:,} calls left")
    if refinements:
        parts.append(f"the refinement of {refinements:,} region{'s' * (refinements != 1)}")
    return f"{' and '.join(parts)}, not counted above; `mohe retry` tries again" if parts else ""


def what_is_left(found: Forecast, waiting: str | None = None) -> str:
    """Return calls, days and the earliest end; `waiting` is the reason why none is made now."""
    if not found.calls:
        return "done"
    if waiting:
        return f"{found.calls:,} calls left; none is made now: {waiting}"
    days = f"{found.days} day{'s' * (found.days != 1)}"
    if found.done_at == NEVER:
        return f"{found.calls:,} calls left; cannot finish at this quota"
    return f"{found.calls:,} calls left on {days}, done {to_minute(found.done_at)} at the earliest"


def the_apis_day(state: ApiState | None, *, quote: Callable[[str], str]) -> str:
    """Return calls used, and whether calls may be made now. `quote` escapes untrusted text."""
    if state is None:
        return "no keys are set (NAVER_CLIENT_ID and NAVER_CLIENT_SECRET)"
    used = f"{state.used_today:,} of {state.daily_quota:,} calls used today"
    if state.monthly_quota is not None:
        used += f", {state.used_this_month:,} of {state.monthly_quota:,} this month"
    if state.blocked_why:
        return f"{used}; BLOCKED: {quote(state.blocked_why)}; correct it, or run `mohe unblock`"
    if state.closed_until:
        return (
            f"{used}; closed until {to_minute(state.closed_until)}: {quote(state.closed_why or '')}"
        )
    if state.unavailable_since:
        probe = f"; next probe {to_minute(state.next_probe_at)}" if state.next_probe_at else ""
        reason = quote(state.unavailable_reason or "")
        return f"{used}; UNAVAILABLE since {to_minute(state.unavailable_since)}: {reason}{probe}"
    return f"{used}; open, resets {to_minute(state.resets_at)}"


def what_is_missing(progress: Progress, state: ApiState | None) -> str:
    """Return the progress and, if the collection is incomplete, the reasons and actions."""
    done = progress.completed + progress.refining
    if not progress.total:
        return "There are no regions to collect: run the job refresh_regions."
    if done == progress.total:
        return f"All {done} regions are completed; `mohe new-round` collects them again."
    reasons = []
    if state and state.blocked_why:
        reasons.append(
            f"The API refuses the keys: {state.blocked_why} Correct them; then `mohe unblock`."
        )
    elif state and state.closed_until:
        reasons.append(
            f"The quota is used up until {to_minute(state.closed_until)}: {state.closed_why}. "
            "The next run after that continues."
        )
    elif state and state.unavailable_since:
        reasons.append(
            f"The API is unavailable since {to_minute(state.unavailable_since)}: "
            f"{(state.unavailable_reason or '').rstrip('.')}. The next run continues."
        )
    if progress.failed:
        reasons.append(
            f"{progress.failed} failed: `mohe status` names the reasons, "
            "`mohe retry` tries them again now."
        )
    if held := progress.processing - progress.refining:
        reasons.append(f"{held} are held by another run.")
    return " ".join(
        [
            f"{done} of {progress.total} regions are completed.",
            *(reasons or ["Run it again to continue."]),
        ]
    )
