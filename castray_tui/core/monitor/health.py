"""How much a cluster's last answer is still worth, by its age and by how asking goes since."""

from __future__ import annotations

from dataclasses import dataclass

from castray_tui.core.errors import AuthError, CastrayError, NotRayError, RayMismatchError
from castray_tui.core.models import ClusterState
from castray_tui.core.monitor.reading import FrozenError
from castray_tui.core.monitor.view import Health
from castray_tui.core.ray_api.http import RefusedError

_SHORTEST_STALE_SECONDS = 10.0
_STALE_POLLS = 3
_UNREACHABLE_SECONDS = 120.0
"""After this long without an answer a silent cluster counts as unreachable rather than slow."""
_FROZEN_UNREACHABLE_SECONDS = 60.0
_LOST_SECONDS = 600.0
_RECENTLY_SECONDS = 60.0
_LONGEST_PAUSE_RECENTLY_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0
_MOST_DOUBLINGS = 8


@dataclass(frozen=True, slots=True)
class Asking:
    """How asking a cluster goes.

    Attributes:
        answer_age_seconds: Since the last whole answer; None if there never was one.
        failures: Polls in a row that failed since then.
        error: What the last of them failed with.
    """

    answer_age_seconds: float | None = None
    failures: int = 0
    error: CastrayError | None = None


def stale_after_seconds(poll_interval_seconds: float) -> float:
    """The age from which an answer no longer counts as fresh, if nothing else is known."""
    return max(_STALE_POLLS * poll_interval_seconds, _SHORTEST_STALE_SECONDS)


def state_of(asking: Asking, poll_interval_seconds: float) -> ClusterState:
    """The cluster's state. A pending question changes nothing here but the age: a hung dashboard
    turns stale while it is asked, not only when the request gives up."""
    age = asking.answer_age_seconds
    error = asking.error
    answers_wrongly = isinstance(error, AuthError | NotRayError | RayMismatchError)
    if age is None:
        if error is None:
            return "connecting"
        return "refused" if answers_wrongly else "unreachable"
    stale_after = stale_after_seconds(poll_interval_seconds)
    state: ClusterState = "stale" if age > stale_after else "connected"
    if answers_wrongly:
        state = "refused"
    elif isinstance(error, RefusedError):
        # Nobody listens: that is known, not only suspected from the age.
        state = "unreachable" if age > stale_after else "stale"
    elif isinstance(error, FrozenError):
        state = "unreachable" if age > _FROZEN_UNREACHABLE_SECONDS else "stale"
    elif age > _UNREACHABLE_SECONDS:
        state = "unreachable"
    if state == "unreachable" and age > _LOST_SECONDS:
        state = "lost"
    return state


def health_of(state: ClusterState) -> Health:
    """What a cluster's state says of its nodes."""
    if state == "connected":
        return "fresh"
    return "stale" if state in {"stale", "refused", "connecting"} else "unreachable"


def pause_seconds(asking: Asking, poll_interval_seconds: float, spent_seconds: float) -> float:
    """How long to wait until the next poll, before jitter.

    Args:
        spent_seconds: What the last poll took. Polls begin an interval apart, with a pause of at
            least a quarter of it, so that a slow cluster is not asked without end.
    """
    if asking.failures == 0:
        return max(poll_interval_seconds - spent_seconds, poll_interval_seconds / 4)
    pause = poll_interval_seconds * 2.0 ** min(asking.failures - 1, _MOST_DOUBLINGS)
    age = asking.answer_age_seconds
    # What answered a moment ago is likely to come back soon.
    recently = age is not None and age < _RECENTLY_SECONDS
    longest = _LONGEST_PAUSE_RECENTLY_SECONDS if recently else _LONGEST_PAUSE_SECONDS
    return min(pause, max(longest, poll_interval_seconds))
