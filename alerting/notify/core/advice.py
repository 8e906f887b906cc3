"""What to do about an alert: the sentence that stands in every message. Pure.

docs/oncall.md says the same at length; a test compares the two lists of rules.
"""

from __future__ import annotations

from types import MappingProxyType

from meterline.schemas.alert import Alert, AlertStatus, RuleType

ADVICE = MappingProxyType(
    {
        "budget_month": (
            "Look at `meterline explain` for the key that spends; raise the month's budget or let "
            "the breaker slow the scope down until the period ends."
        ),
        "budget_day": (
            "Look at `meterline explain` for the key that spends; raise the day's budget or wait "
            "for midnight in the billing time zone."
        ),
        "hour_spend": (
            "Something spends fast: find the key with `meterline explain`; throttle it by hand if "
            "it is a runaway loop."
        ),
        "day_spend": (
            "The day's spend limit is used up: requests are refused until midnight unless the "
            "limit is raised."
        ),
        "day_tokens": (
            "The day's token limit is used up: requests are refused until midnight unless the "
            "limit is raised."
        ),
    }
)
"""By rule id."""
_BY_TYPE = MappingProxyType(
    {
        RuleType.DEVIATION: (
            "Spend is far above what is usual: ask the owner of the key that drives it; throttle "
            "it by hand if it is a runaway loop or a stolen key."
        ),
        RuleType.BURN_RATE: (
            "At this pace the budget ends early: find the key with `meterline explain`, then "
            "throttle it or raise the budget."
        ),
        RuleType.NO_DATA: (
            "No usage came although there usually is some: is the relay up, does it send? Begin "
            "with `meterline status`."
        ),
        RuleType.THRESHOLD: "Look at `meterline explain` for the key that spends.",
        RuleType.LIMIT: "Look at `meterline explain` for the key that spends.",
        RuleType.BREAKER: "Requests are being slowed down or refused: see `meterline explain`.",
        RuleType.PIPELINE: "The pipeline needs a look: begin with `meterline status`.",
    }
)
_RESOLVED = "Nothing: it is over."
_FALLBACK = "Look at `meterline explain` for the scope."


def advice(alert: Alert) -> str:
    """The sentence."""
    if alert.status is AlertStatus.RESOLVED:
        return _RESOLVED
    return ADVICE.get(alert.rule_id) or _BY_TYPE.get(alert.rule_type, _FALLBACK)
