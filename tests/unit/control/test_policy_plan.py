"""The plan: what applying a policy changes, which versions rise, and the audit log of it."""

from __future__ import annotations

from meterline.alerting.notify.channels.webhook import WebhookChannel
from meterline.control.policy.file import ChangeAction, PolicyChange, audit_entries, plan
from meterline.schemas.policy import (
    NOTIFY_ID,
    RULES_ID,
    Budget,
    Limits,
    NotifyPolicy,
    PolicyObject,
    RuleSet,
    ScopePolicy,
    decode_policy,
)
from meterline.schemas.throttle import ThrottleMode

DOLLAR = 10**9
RESEARCH = "department:acme/research"


def department(version: int = 1, budget_version: int = 1, month: int = 50) -> ScopePolicy:
    return ScopePolicy(
        scope=RESEARCH,
        parent="organisation:acme",
        version=version,
        budget_version=budget_version,
        budget=Budget(month_nano_usd=month * DOLLAR),
    )


def only(before: PolicyObject | None, after: PolicyObject) -> PolicyChange:
    current = {} if before is None else {RESEARCH: before}
    (change,) = plan(current, {RESEARCH: after})
    return change


def test_equal_objects_need_no_change_whatever_their_versions() -> None:
    """An object that says the same is left at the version it has."""
    assert plan({RESEARCH: department(7, 3)}, {RESEARCH: department()}) == ()


def test_a_new_object_is_created_at_version_1() -> None:
    """A creation shows what the object says beyond the defaults."""
    change = only(None, department())
    assert (change.action, change.before, change.after) == (
        ChangeAction.CREATED,
        None,
        department(1, 1),
    )
    assert str(change) == f"+ {RESEARCH}  parent: organisation:acme, budget.month_usd: 50"


def test_a_changed_budget_raises_both_versions() -> None:
    """A budget change raises version and budget_version, which re-arms thresholds."""
    change = only(department(7, 3), department(month=60))
    assert change.after == department(8, 4, month=60)
    assert str(change) == f"~ {RESEARCH}  budget.month_usd: 50 -> 60"


def test_a_changed_spend_limit_raises_both_versions() -> None:
    """Hour spend, day spend and day tokens are what alerting compares spend with."""
    for limits in (
        Limits(hour_spend_nano_usd=DOLLAR // 4),
        Limits(day_spend_nano_usd=DOLLAR),
        Limits(day_tokens=5),
    ):
        change = only(department(7, 3), department().model_copy(update={"limits": limits}))
        assert isinstance(change.after, ScopePolicy)
        assert (change.after.version, change.after.budget_version) == (8, 4)
    assert str(only(department(), department().model_copy(
        update={"limits": Limits(hour_spend_nano_usd=DOLLAR // 4)}
    ))) == f"~ {RESEARCH}  limits.hour_spend_usd: none -> 0.25"  # fmt: skip


def test_another_change_raises_the_version_alone() -> None:
    """A rate limit or a name does not re-arm thresholds."""
    for update in (
        {"limits": Limits(requests_per_minute=5, allowed_models=("a", "b"))},
        {"name": "Research"},
        {"throttle_mode": ThrottleMode.QUEUE},
        {"disabled": True},
    ):
        change = only(department(7, 3), department().model_copy(update=update))
        assert isinstance(change.after, ScopePolicy)
        assert (change.after.version, change.after.budget_version) == (8, 3)


def test_fields_are_shown_as_operators_write_them() -> None:
    """Lists, switches and absent values have a spelling of their own."""
    after = department().model_copy(
        update={"limits": Limits(allowed_models=("a", "b")), "disabled": True, "name": "R"}
    )
    assert str(only(department(), after)) == (
        f"~ {RESEARCH}  name: none -> R, limits.allowed_models: none -> [a, b], "
        f"disabled: false -> true"
    )


def test_an_object_that_is_gone_is_deleted() -> None:
    """What the file no longer has gets a change without an after."""
    (change,) = plan({RESEARCH: department(7, 3)}, {})
    assert (change.action, change.before, change.after) == (
        ChangeAction.DELETED,
        department(7, 3),
        None,
    )
    assert str(change) == f"- {RESEARCH}"


def test_rules_and_channels_are_versioned_too() -> None:
    """The rule set and the channels rise by one version with a change."""
    channel = WebhookChannel(id="ops", url="https://a.example.com/token-1")
    current: dict[str, PolicyObject] = {
        RULES_ID: RuleSet(version=4),
        NOTIFY_ID: NotifyPolicy(version=2, channels=(channel,)),
    }
    moved = channel.model_copy(update={"url": "https://a.example.com/token-2"})
    desired: dict[str, PolicyObject] = {
        RULES_ID: RuleSet(thresholds_percent=(90, 100)),
        NOTIFY_ID: NotifyPolicy(channels=(moved,)),
    }
    notify, rules = plan(current, desired)
    assert rules.after == RuleSet(version=5, thresholds_percent=(90, 100))
    assert notify.after == NotifyPolicy(version=3, channels=(moved,))
    assert "thresholds_percent: [50, 75, 80, 90, 95, 100] -> [90, 100]" in str(rules)
    assert "channels[ops]" in str(notify)
    assert "token" not in str(notify)


def test_parents_come_before_children_and_deletions_last() -> None:
    """Applying a part of the changes never leaves a child without its parent."""
    names = [
        "organisation:acme", "department:acme/d", "project:acme/p", "user:acme/u", "key:acme/k",
    ]  # fmt: skip
    objects: dict[str, PolicyObject] = {name: ScopePolicy(scope=name) for name in names}
    shuffled = {name: objects[name] for name in ["key:acme/k", *names[:4]]}
    assert [change.object_id for change in plan({}, shuffled)] == names
    assert [change.object_id for change in plan(shuffled, {})] == names[::-1]
    created_then_deleted = plan(
        {"key:acme/k": objects["key:acme/k"]}, {names[0]: objects[names[0]]}
    )
    assert [change.action for change in created_then_deleted] == [
        ChangeAction.CREATED,
        ChangeAction.DELETED,
    ]


def test_a_stranger_under_an_objects_id_is_replaced_at_a_higher_version() -> None:
    """Another kind of object under the id is overwritten, and readers see a newer version."""
    change = only(RuleSet(version=9), department())
    assert change.action is ChangeAction.CHANGED
    assert change.after == department(10, 1)


def test_audit_entries_show_before_and_after() -> None:
    """One entry per change, whose JSON is the object as published."""
    changes = plan({RESEARCH: department()}, {RESEARCH: department(month=60)})
    (entry,) = audit_entries(changes, actor="ana", reason="more", at_ms=1_700_000_000_000)
    assert (entry.actor, entry.reason, entry.at_ms) == ("ana", "more", 1_700_000_000_000)
    assert (entry.action, entry.object_id) == ("policy.changed", RESEARCH)
    assert decode_policy(entry.before.encode()) == department()
    assert decode_policy(entry.after.encode()) == department(2, 2, month=60)
    (gone,) = audit_entries(
        plan({RESEARCH: department()}, {}), actor="ana", reason="", at_ms=1_700_000_000_000
    )
    assert (gone.action, gone.after) == ("policy.deleted", "")


def test_a_retry_gives_the_same_audit_entries_and_another_change_others() -> None:
    """Ids depend on the change, its time, its author and reason, and on nothing else."""
    changes = plan({}, {RESEARCH: department()})
    first = audit_entries(changes, actor="ana", reason="r", at_ms=5)
    assert audit_entries(changes, actor="ana", reason="r", at_ms=5) == first
    others = [
        audit_entries(changes, actor="bob", reason="r", at_ms=5),
        audit_entries(changes, actor="ana", reason="s", at_ms=5),
        audit_entries(changes, actor="ana", reason="r", at_ms=6),
        audit_entries(plan({}, {RESEARCH: department(month=9)}), actor="ana", reason="r", at_ms=5),
    ]
    assert len({entry.id for entries in [first, *others] for entry in entries}) == 5
