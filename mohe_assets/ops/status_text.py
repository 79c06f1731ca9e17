"""What `mohe status`, `mohe plan` and the report say alike: moments, what is left to do, and the
API's day.
"""

import datetime as dt
from collections.abc import Callable

from mohe_assets.domain.forecast import NEVER, Forecast
from mohe_assets.domain.kst import KST
from mohe_assets.store.api_state import ApiState
from mohe_assets.store.checkpoints import Progress
from mohe_assets.store.origin import Mismatch


def kst(moment: dt.datetime) -> str:
    """A moment for people, to the minute."""
    return f"{moment.astimezone(KST):%Y-%m-%d %H:%M} KST"


def done_when(found: Forecast, waiting: str | None = None) -> str:
    """`done`, `never`, when, or why no call is made now."""
    if not found.calls:
        return "done"
    if waiting:
        return waiting
    return "never" if found.done_at == NEVER else kst(found.done_at)


def waits_for(state: ApiState | None, *, mismatch: Mismatch | None = None) -> str | None:
    """Why no call is made now; a quota that is used up has its place in every forecast."""
    if mismatch is not None:
        return "the data is of another origin than the keys"
    if state is None:
        return "no keys are set"
    if state.blocked_why:
        return "the API is blocked"
    return "the API is unavailable" if state.unavailable_since else None


def given_up_sentence(regions: int, calls: int, refinements: int) -> str:
    """What errors ended, and how it is brought back; "" if there is nothing."""
    parts = []
    if regions:
        parts.append(f"{regions:,} region{'s' * (regions != 1)} with {calls:,} calls left")
    if refinements:
        parts.append(f"the refinement of {refinements:,} region{'s' * (refinements != 1)}")
    return f"{' and '.join(parts)}, not counted above; `mohe retry` tries again" if parts else ""


def what_is_left(found: Forecast, waiting: str | None = None) -> str:
    """Calls, days, and when they are made at the earliest; `waiting` is why none is made now."""
    if not found.calls:
        return "done"
    if waiting:
        return f"{found.calls:,} calls left; none is made now: {waiting}"
    days = f"{found.days} day{'s' * (found.days != 1)}"
    if found.done_at == NEVER:
        return f"{found.calls:,} calls left on {days}, done never"
    return f"{found.calls:,} calls left on {days}, done {kst(found.done_at)} at the earliest"


def the_apis_day(state: ApiState | None, *, quote: Callable[[str], str]) -> str:
    """Calls used, and whether any may be made now. `quote` makes a foreign sentence harmless where
    this is shown.
    """
    if state is None:
        return "no keys are set (NAVER_CLIENT_ID and NAVER_CLIENT_SECRET)"
    used = f"{state.used_today:,} of {state.daily_quota:,} calls used today"
    if state.monthly_quota is not None:
        used += f", {state.used_this_month:,} of {state.monthly_quota:,} this month"
    if state.blocked_why:
        return f"{used}; BLOCKED: {quote(state.blocked_why)}; put it right, or `mohe unblock`"
    if state.closed_until:
        return f"{used}; closed until {kst(state.closed_until)}: {quote(state.closed_why or '')}"
    if state.unavailable_since:
        probe = f"; next probe {kst(state.next_probe_at)}" if state.next_probe_at else ""
        return f"{used}; UNAVAILABLE since {kst(state.unavailable_since)}: {quote(state.unavailable_reason or '')}{probe}"
    return f"{used}; open, resets {kst(state.resets_at)}"


def what_is_missing(progress: Progress, state: ApiState | None) -> str:
    """How far the collection is; if it is not complete, why it is not, and what to do."""
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
            f"The quota is used up until {kst(state.closed_until)}: {state.closed_why}. "
            "The next run after that continues."
        )
    elif state and state.unavailable_since:
        reasons.append(
            f"The API is unavailable since {kst(state.unavailable_since)}: "
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
