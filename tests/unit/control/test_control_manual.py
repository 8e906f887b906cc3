"""Orders by hand: what is refused, what is published, what the audit log says."""

from __future__ import annotations

import json

import pytest

from meterline.app.commands.manual import read_until
from meterline.control.manual import (
    ManualOrder,
    change_entry,
    override_budget,
    release_throttle,
    revert_budget,
    set_throttle,
)
from meterline.control.policy.plan import plan
from meterline.schemas.errors import UserError
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.periods import HOUR_MS, parse_rfc3339
from meterline.schemas.policy import Budget, PolicyObject, ScopePolicy, object_id
from meterline.schemas.scopes import ScopeError
from meterline.schemas.throttle import ThrottleMode

NOW_MS = parse_rfc3339("2026-11-21T12:00:00Z")
KEY = "key:acme/k-1"
POLICIES: dict[str, PolicyObject] = {
    KEY: ScopePolicy(scope=KEY, budget=Budget(month_nano_usd=10**11))
}


def order(hours: int, reason: str = "a loop") -> ManualOrder:
    return ManualOrder("ann", reason, NOW_MS, NOW_MS + hours * HOUR_MS)


def test_a_throttle_names_who_why_and_until_when() -> None:
    """The object holds all of it, and the audit entry the object."""
    change = set_throttle({}, KEY, 0, ThrottleMode.REJECT, order(2))
    assert isinstance(change.after, ManualThrottle)
    entry = change_entry(change, order(2))
    assert (entry.actor, entry.action, entry.reason) == ("ann", "throttle.set", "a loop")
    assert json.loads(entry.after)["until_ms"] == NOW_MS + 2 * HOUR_MS
    assert entry == change_entry(change, order(2)), "a retry writes the same"


@pytest.mark.parametrize(
    ("given", "word"),
    [(order(25), "24 hours"), (order(0), "future"), (order(1, " "), "--reason")],
)
def test_an_order_without_sense_is_refused(given: ManualOrder, word: str) -> None:
    """More than a day, an end in the past, and no reason are refused with the reason."""
    with pytest.raises(UserError, match=word):
        set_throttle({}, KEY, 0, ThrottleMode.REJECT, given)


def test_a_scope_must_be_one() -> None:
    """A word that is no scope is refused before anything is read or written."""
    with pytest.raises(ScopeError):
        set_throttle({}, "k-1", 0, ThrottleMode.REJECT, order(1))


def test_release_ends_what_is_in_force() -> None:
    """A release keeps the object with its end now; a second one has nothing to do."""
    first = set_throttle({}, KEY, 0, ThrottleMode.REJECT, order(2)).after
    later = ManualOrder("bob", "fixed", NOW_MS + HOUR_MS)
    change = release_throttle({object_id(first): first}, KEY, later)
    assert not change.after.holds(later.at_ms)
    with pytest.raises(UserError, match="no manual throttle"):
        release_throttle({object_id(change.after): change.after}, KEY, later)


def test_an_override_needs_a_budget_to_override() -> None:
    """Only a period that the policy file gives a budget can have another one."""
    change = override_budget(POLICIES, KEY, {"month": 5 * 10**11}, order(48))
    assert isinstance(change.after, BudgetOverride)
    assert change.after.month_nano_usd == 5 * 10**11
    with pytest.raises(UserError, match="no day budget"):
        override_budget(POLICIES, KEY, {"day": 1}, order(1))
    reverted = revert_budget({object_id(change.after): change.after}, KEY, order(1))
    assert reverted.after.until_ms == NOW_MS


def test_a_second_override_has_another_version() -> None:
    """Each override is a budget of its own: thresholds are notified again."""
    first = override_budget(POLICIES, KEY, {"month": 1}, order(1)).after
    second = override_budget({**POLICIES, object_id(first): first}, KEY, {"month": 2}, order(1))
    assert second.after.version == first.version + 1


def test_the_policy_file_leaves_orders_alone() -> None:
    """`policy apply` neither shows nor deletes what operators set manually."""
    hold = set_throttle({}, KEY, 0, ThrottleMode.REJECT, order(2)).after
    assert plan({**POLICIES, object_id(hold): hold}, POLICIES) == ()


@pytest.mark.parametrize(
    ("text", "until_ms"),
    [("2h", NOW_MS + 2 * HOUR_MS), ("2026-11-21T18:00Z", NOW_MS + 6 * HOUR_MS)],
)
def test_an_end_is_a_duration_or_a_time(text: str, until_ms: int) -> None:
    """Both spellings mean the same thing."""
    assert read_until(text, NOW_MS) == until_ms


def test_an_end_that_is_neither_is_refused() -> None:
    """The error shows how to write it."""
    with pytest.raises(UserError, match="30m, 2h, 1d"):
        read_until("tomorrow", NOW_MS)
