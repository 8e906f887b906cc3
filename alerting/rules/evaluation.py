"""An evaluation: what one rule says of one subject now, whatever the kind of the rule. Pure.

The lifecycle of alerts (`alerting.core.lifecycle`) makes alerts of it; here is what they say.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from meterline.alerting.rules.measurement import NANO_USD
from meterline.schemas.alert import Explanation, RuleType, Severity
from meterline.schemas.money import usd_display
from meterline.schemas.rule_ref import RuleRef

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_UNITS_SHOWN = 2


class Subject(NamedTuple):
    """What an alert is about."""

    scope: str
    name: str = ""
    """The scope's display name; may be empty."""

    @property
    def text(self) -> str:
        """As alerts name it."""
        return f"{self.name} ({self.scope})" if self.name else self.scope


class Ending(StrEnum):
    """What ends a firing alert, besides another budget version and the end of its rule."""

    CLEARED = "cleared"
    """The rule says that its cause is over. An incident across midnight is one incident."""
    PERIOD = "period"
    """The period's end, or a limit that was raised above what is spent. Spend that falls below a
    threshold within the period resolves nothing: the threshold was crossed in this period, and
    would not be notified again."""


class Evaluation(NamedTuple):
    """What one rule says of one subject now."""

    rule: RuleRef
    rule_type: RuleType
    level: int
    """The highest threshold that is reached; 0 if none."""
    window: str
    period: str
    reset_at_ms: int
    observed: int
    limit: int
    percent: int
    """floor(100 * observed / limit)."""
    unit: str
    severity: Severity
    summary: str
    ending: Ending = Ending.CLEARED
    still_active: bool = True
    """Whether a firing alert still has its cause, where the ending is CLEARED."""
    recurs: bool = False
    """Whether it may fire again in a period after it was resolved: each time has its own ids, made
    of its start."""
    explanation: Explanation | None = None
    for_seconds: int = 0
    renotify_seconds: int = 0
    lower_levels: tuple[int, ...] = ()
    """Lower thresholds that are reached as well."""


def percent_of(observed: int, limit: int) -> int:
    """floor(100 * observed / limit); 0 where there is no limit."""
    return observed * 100 // limit if limit else 0


def amount_text(amount: int, unit: str) -> str:
    """An amount as alerts show it."""
    return usd_display(amount) if unit == NANO_USD else f"{amount:,} tokens"


def hundredths_text(value: int) -> str:
    """Hundredths as a decimal number."""
    return f"{value // 100}.{value % 100:02d}"


def span_text(seconds: int) -> str:
    """A length of time in its two largest units."""
    parts: list[str] = []
    rest = seconds
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count and len(parts) < _UNITS_SHOWN:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"
