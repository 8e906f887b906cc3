"""Alerts that a replaced controller still wrote: its successor takes them over. Pure.

Two controllers may overlap: one is paused between its effects, another takes over and reads the
topics, the first continues and writes what it had decided. Nothing at the broker keeps that record
out, so the controller in charge follows the alerts topic: what it did not write becomes part of
what it knows, as at a restart, and the next evaluation resolves what does not hold.

    FIRING of a period or budget that is over    resolved at once
    FIRING of the current one                    taken over: fired, and does not fire again
    RESOLVED                                     taken over: it was resolved
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from meterline.alerting.core import lifecycle
from meterline.alerting.core.lifecycle import Episode
from meterline.alerting.core.state import ScopeState, State
from meterline.alerting.rules.pipeline import HealthCheckKind
from meterline.alerting.rules.registry import RULES, RuleKinds
from meterline.schemas.alert import Alert, AlertStatus, RuleType
from meterline.schemas.rule_ref import RuleRef, parse_rule

_CHECKS = {kind.value: kind for kind in HealthCheckKind}


class ForeignAlerts:
    """Distinguishes a controller's own records, as read back from the topic, from those of others."""

    def __init__(self, kinds: RuleKinds = RULES) -> None:
        """Start with nothing written and nothing read."""
        self._kinds = kinds
        self._expected: Counter[str] = Counter()
        self._others: dict[str, Alert] = {}
        """The last record of each alert, where another controller wrote it."""

    def writing(self, alerts: Iterable[Alert]) -> None:
        """These are about to be written; each comes back once."""
        self._expected.update(alert.id for alert in alerts)

    def read(self, alert: Alert) -> bool:
        """Take one record of the topic; True if another wrote it.

        Another's record with the same id passes for ours, and ours then for another's: both say
        the same, and to take over one's own record changes nothing that an evaluation does not
        correct.
        """
        if not is_ours(parse_rule(alert.rule_id), self._kinds):
            return False
        self._others.pop(alert.dedup_key, None)
        if self._expected[alert.id] > 0:
            self._expected[alert.id] -= 1
            # Only what is still to come back is kept.
            self._expected += Counter()
            return False
        self._others[alert.dedup_key] = alert
        return True

    def take(self, now_ms: int) -> list[Alert]:
        """Others' records to take over now.

        What begins in this clock's future was written by a clock that is ahead: its period may not
        have begun here, and would be taken for one that is over.
        """
        due = [alert for alert in self._others.values() if alert.starts_at_ms <= now_ms]
        for alert in due:
            del self._others[alert.dedup_key]
        return due


def is_ours(rule: RuleRef, kinds: RuleKinds = RULES) -> bool:
    """Whether this controller runs a rule.

    `pipeline.drift` is the reports worker's, which restores it by itself; alerts of a rule that
    only a later version has are that version's business.
    """
    if rule.kind == RuleType.PIPELINE:
        return rule.id in _CHECKS
    return rule.kind in kinds.evaluated


def put_episode(state: State, scope: str, rule: RuleRef, episode: Episode) -> None:
    """Store a rule's latest episode."""
    if rule.kind == RuleType.PIPELINE:
        state.pipeline[_CHECKS[rule.id], scope] = episode
        return
    known = state.scopes.get(scope, ScopeState())
    state.scopes[scope] = replace(known, episodes={**known.episodes, rule: episode})


def take_over(state: State, alert: Alert) -> list[Alert]:
    """Apply another controller's record; its scope is then to be evaluated.

    Returns:
        Resolutions of what belongs to a period or budget version that is over.
    """
    rule = parse_rule(alert.rule_id)
    if rule.kind == RuleType.PIPELINE:
        current = state.pipeline.get((_CHECKS[rule.id], alert.scope))
    else:
        known = state.scopes.get(alert.scope, ScopeState())
        current = known.episodes.get(rule)
    identity = (alert.period, alert.budget_version)
    if current is not None and (current.period, current.budget_version) != identity:
        # The current episode stays: it says what must not fire again.
        return lifecycle.abandon(lifecycle.recalled(None, alert), state.now_ms)
    if current is None or not _has(current, alert):
        put_episode(state, alert.scope, rule, lifecycle.recalled(current, alert))
    return []


def _has(episode: Episode, alert: Alert) -> bool:
    """Whether a firing alert is known: reminders then follow the known one."""
    return alert.status is AlertStatus.FIRING and any(
        known.dedup_key == alert.dedup_key for known in episode.firing
    )
