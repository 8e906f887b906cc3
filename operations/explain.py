"""Why a scope is in its throttle state: state, rule, evidence, since, until, and who can lift it.

A request is decided by its scope and everything above it, so each of them is explained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.control.store import read_policies
from meterline.operations.pipeline import Pipeline
from meterline.reports.decisions import (
    StoredAlert,
    StoredCommand,
    read_alerts,
    read_commands,
    read_objects,
)
from meterline.schemas.manual import (
    OVERRIDE_PREFIX,
    THROTTLE_PREFIX,
    BudgetOverride,
    ManualThrottle,
)
from meterline.schemas.periods import rfc3339
from meterline.schemas.policy import PolicyObject, ScopePolicy, decode_policy
from meterline.schemas.scopes import parse_scope
from meterline.schemas.throttle import BUDGET_REASONS, BreakerState

PARENTS_MAX = 5
"""Organisation, department, project, user, key: no scope has more above it."""
_MANUAL = "manual"


class ScopeExplanation(NamedTuple):
    """One scope at one time; times in UTC ms, 0 for none."""

    scope: str
    state: BreakerState
    rule: str
    reason: str
    evidence: dict[str, Any]
    since_ms: int
    until_ms: int
    lift: str
    """The role that can end it, and how."""
    orders: tuple[str, ...]
    version: str


class ScopeExplanations(NamedTuple):
    """A scope and everything above it, and the alerts of all of them, the newest first."""

    scopes: Sequence[ScopeExplanation]
    alerts: Sequence[StoredAlert]


def explain_scopes(
    pipeline: Pipeline, scope: str, at_ms: int, *, past: bool = False
) -> ScopeExplanations:
    """Explain a scope and everything above it.

    Args:
        pipeline: whose policy, commands and alerts are read.
        scope: its spelling.
        at_ms: the time to explain, UTC ms.
        past: read the policies of that time from the audit log; else those published now.

    Raises:
        ScopeError: no scope.
        KafkaClientError: the published policy cannot be read.
        ClickHouseError: the store does not answer, or refuses.
    """
    with closing(Client(pipeline.clickhouse)) as client:
        # The topic holds only what is published now; the audit log every change.
        policies = (
            past_objects(scope, lambda names: read_objects(client, names, at_ms))
            if past
            else read_policies(pipeline.kafka("explain"))
        )
        scopes = chain_of(scope, policies)
        return ScopeExplanations(
            [
                explain_scope(each, read_commands(client, each, at_ms), policies, at_ms)
                for each in scopes
            ],
            read_alerts(client, scopes, at_ms),
        )


def past_objects(
    scope: str, read: Callable[[Sequence[str]], Mapping[str, str]]
) -> dict[str, PolicyObject]:
    """The policies and orders of a scope and of all above it, as they were.

    Args:
        scope: its spelling; ScopeError if it is none.
        read: returns the objects of one time by their ids, as JSON, those that existed.
    """
    found: dict[str, PolicyObject] = {}
    asked: set[str] = set()
    # Each policy names the one above it, so levels become known one after the other.
    while new := [each for each in chain_of(scope, found) if each not in asked]:
        asked.update(new)
        prefixes = ("", THROTTLE_PREFIX, OVERRIDE_PREFIX)
        texts = read([prefix + each for each in new for prefix in prefixes])
        found |= {name: decode_policy(text.encode()) for name, text in texts.items()}
    return found


def chain_of(scope: str, policies: Mapping[str, PolicyObject]) -> tuple[str, ...]:
    """The scope and those above it, as the policies say; ScopeError if it is none."""
    parse_scope(scope)
    found = [scope]
    while len(found) < PARENTS_MAX:
        policy = policies.get(found[-1])
        parent = policy.parent if isinstance(policy, ScopePolicy) else ""
        if not parent or parent in found:
            break
        found.append(parent)
    organisation = f"organisation:{parse_scope(scope).organisation}"
    return tuple(found if organisation in found else [*found, organisation])


def explain_scope(
    scope: str,
    commands: Sequence[StoredCommand],
    policies: Mapping[str, PolicyObject],
    at_ms: int,
) -> ScopeExplanation:
    """Explain one scope.

    Args:
        scope: its spelling.
        commands: its commands up to `at_ms`, the newest first.
        policies: policies and orders as they were at `at_ms`.
        at_ms: the time of the question.
    """
    orders = _orders(scope, policies, at_ms)
    if not commands or commands[0].state == BreakerState.CLOSED:
        reason = commands[0].reason if commands else "no rule has ever restricted it"
        since_ms = commands[0].issued_at_ms if commands else 0
        version = commands[0].version if commands else ""
        return ScopeExplanation(
            scope, BreakerState.CLOSED, "", reason, {}, since_ms, 0, "", orders, version
        )
    newest = commands[0]
    return ScopeExplanation(
        scope,
        BreakerState(newest.state),
        newest.reason_code,
        newest.reason,
        json.loads(newest.evidence) if newest.evidence else {},
        _since(commands),
        newest.reset_at_ms or newest.expires_at_ms,
        _lift(newest),
        orders,
        newest.version,
    )


def _since(commands: Sequence[StoredCommand]) -> int:
    """When the newest command's state and cause began: renewals repeat both."""
    newest = commands[0]
    since_ms = newest.issued_at_ms
    for each in commands:
        if (each.state, each.reason_code) != (newest.state, newest.reason_code):
            break
        since_ms = each.issued_at_ms
    return since_ms


def _lift(command: StoredCommand) -> str:
    scope = command.scope
    if command.reason_code == _MANUAL:
        return f"the operator: meterline throttle release {scope} --reason ..."
    if command.reason_code in BUDGET_REASONS:
        return (
            f"the budget's owner: meterline budget override {scope} --amount ... "
            "--until ... --reason ..., or the policy file; else the period's end"
        )
    return "the limit's owner, in the policy file; else the window's end"


def _orders(scope: str, policies: Mapping[str, PolicyObject], at_ms: int) -> tuple[str, ...]:
    found = []
    hold = policies.get(THROTTLE_PREFIX + scope)
    if isinstance(hold, ManualThrottle) and hold.holds(at_ms):
        what = "blocked" if hold.admit_percent == 0 else f"throttled to {hold.admit_percent} %"
        until = rfc3339(hold.until_ms)
        found.append(f"{what} by {hold.author} until {until}: {hold.reason}")
    override = policies.get(OVERRIDE_PREFIX + scope)
    if isinstance(override, BudgetOverride) and override.holds(at_ms):
        until = rfc3339(override.until_ms)
        found.append(f"budget overridden by {override.author} until {until}: {override.reason}")
    return tuple(found)


def explanation_json(
    at_ms: int, explained: Sequence[ScopeExplanation], alerts: Sequence[StoredAlert]
) -> dict[str, Any]:
    """The explanations and alerts as plain values; times in UTC, empty for none."""
    return {
        "at": rfc3339(at_ms),
        "scopes": [
            {
                "scope": each.scope,
                "state": each.state.value,
                "rule": each.rule,
                "reason": each.reason,
                "evidence": each.evidence,
                "since": rfc3339(each.since_ms) if each.since_ms else "",
                "until": rfc3339(each.until_ms) if each.until_ms else "",
                "lift": each.lift,
                "orders": list(each.orders),
                "version": each.version,
            }
            for each in explained
        ],
        "alerts": [
            {
                "at": rfc3339(max(each.starts_at_ms, each.ends_at_ms)),
                "status": each.status,
                "severity": each.severity,
                "rule": each.rule_id,
                "scope": each.scope,
                "summary": each.summary,
            }
            for each in alerts
        ],
    }
