"""No data: a scope that used to spend and does not any more. Pure.

The rule holds from `after` since the scope's newest event on, and ends with the next one. An
incident has its name from the last minute with spend.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from meterline.alerting.rules.evaluation import Evaluation, percent_of, span_text
from meterline.alerting.rules.kind import ScopeRuleKind, ScopeView
from meterline.schemas.alert import RuleType, Severity
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy_entry import Duration
from meterline.schemas.policy_kinds import FieldFault, RuleEntry
from meterline.schemas.policy_rules import NoDataRule
from meterline.schemas.rule_ref import RuleRef

_DAY = 86_400
_AFTER_SECONDS_MIN = 60
_AFTER_SECONDS_MAX = 30 * _DAY


class NoDataEntry(RuleEntry):
    """Its fields in the policy file."""

    after: Duration = 6 * 3_600


class NoDataKind(ScopeRuleKind[NoDataEntry, NoDataRule, None]):
    """Silence of a scope."""

    name = RuleType.NO_DATA.value
    rule_type = RuleType.NO_DATA
    published_field = "no_data"
    published = NoDataRule
    entry = NoDataEntry
    ended_by_spend = True

    @override
    def check(self, entry: NoDataEntry, /) -> Iterator[FieldFault]:
        """The time without usage is in range."""
        if not _AFTER_SECONDS_MIN <= entry.after <= _AFTER_SECONDS_MAX:
            yield "after", "must be between 1m and 30d"

    @override
    def compile(self, entry: NoDataEntry, /) -> NoDataRule:
        """The published rule, in seconds."""
        return NoDataRule(
            id=entry.id,
            scope_types=entry.scope_types,
            for_seconds=entry.for_,
            renotify_seconds=entry.renotify,
            after_seconds=entry.after,
        )

    @override
    def evaluate(self, rule: NoDataRule, prepared: None, view: ScopeView) -> Evaluation:
        """Whether a scope that spent before has been silent for too long."""
        last_ms = view.history.last_event_ms
        silent_seconds = max(0, view.now_ms - last_ms) // 1000 if last_ms else 0
        holds = silent_seconds >= rule.after_seconds
        minute = view.calendar.window(WindowKind.MINUTE, last_ms)
        return Evaluation(
            rule=RuleRef(self.name, rule.id),
            rule_type=self.rule_type,
            level=1 if holds else 0,
            still_active=holds,
            window=WindowKind.MINUTE,
            period=view.calendar.period(minute),
            reset_at_ms=0,
            observed=silent_seconds,
            limit=rule.after_seconds,
            percent=percent_of(silent_seconds, rule.after_seconds),
            unit="seconds",
            severity=Severity.WARNING,
            summary=(
                f"{view.subject.text} has not spent anything for {span_text(silent_seconds)}"
                if holds
                else ""
            ),
            for_seconds=rule.for_seconds,
            renotify_seconds=rule.renotify_seconds,
        )

    @override
    def recheck_ms(self, rule: NoDataRule, view: ScopeView, *, is_active: bool) -> int:
        """When the silence would be long enough."""
        last_ms = view.history.last_event_ms
        return last_ms + rule.after_seconds * 1000 if last_ms else 0

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """Where usage may be held up."""
        return (
            "No usage came although there usually is some: is the relay up, does it send? Begin "
            "with `meterline status`."
        )
