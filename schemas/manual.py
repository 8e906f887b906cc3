"""Manual overrides by operators: a throttle on a scope, or a temporary budget.

Both are policy objects of their own, beside the file's: `meterline throttle` and `meterline
budget` write them, every one has an author, a reason and an end, and `policy apply` leaves them
alone. They stay on the topic after their end, because budget versions depend on them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from meterline.schemas.periods import HOUR_MS
from meterline.schemas.throttle import ThrottleMode

Amount = Annotated[int, Field(ge=0)]
THROTTLE_PREFIX = "throttle:"
"""Object ids of manual throttles: `throttle:SCOPE`."""
OVERRIDE_PREFIX = "override:"
"""Object ids of budget overrides: `override:SCOPE`."""
THROTTLE_MS_MAX = 24 * HOUR_MS
"""DESIGN.md section 8: a manual throttle must be renewed after a day at the latest."""
OVERRIDE_MS_MAX = 31 * 24 * HOUR_MS
"""A longer override is no exception but the budget: that belongs into the policy file."""
# A file's versions count single changes; no file is changed this often.
_VERSION_STEP = 1_000_000


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ManualThrottle(_Wire):
    """An operator's restriction of a scope; in force while `since_ms <= now < until_ms`."""

    kind: Literal["throttle"] = "throttle"
    version: int = 1
    scope: str
    admit_percent: int = Field(ge=0, le=100)
    """Share of the base limits, or of the requests where there are none; 0 blocks."""
    mode: ThrottleMode = ThrottleMode.REJECT
    since_ms: int
    until_ms: int
    author: str
    reason: str

    def holds(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return self.since_ms <= now_ms < self.until_ms


class BudgetOverride(_Wire):
    """A temporary budget until `until_ms`; then the file's is in force again.

    None leaves a budget as it is. A scope that has no budget of a period gets none.
    """

    kind: Literal["override"] = "override"
    version: int = 1
    scope: str
    month_nano_usd: Amount | None = None
    day_nano_usd: Amount | None = None
    since_ms: int
    until_ms: int
    author: str
    reason: str

    def holds(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return self.since_ms <= now_ms < self.until_ms

    def budget_version(self, base: int, now_ms: int) -> int:
        """The version of the budget in force: another one with every start and end.

        Alerts are notified once per budget version: after the end the alerts of the file's budget
        are notified again, although they may have been before the override.
        """
        if now_ms < self.since_ms:
            return base
        return base + _VERSION_STEP * (2 * self.version - self.holds(now_ms))


ManualObject = ManualThrottle | BudgetOverride


def manual_id(item: ManualObject) -> str:
    """The object id, which is the record key."""
    prefix = THROTTLE_PREFIX if isinstance(item, ManualThrottle) else OVERRIDE_PREFIX
    return prefix + item.scope


def subject_of(object_id: str) -> str:
    """The scope that a policy object is about: its id, without the prefix of a manual one."""
    for prefix in (THROTTLE_PREFIX, OVERRIDE_PREFIX):
        if object_id.startswith(prefix):
            return object_id.removeprefix(prefix)
    return object_id
