"""A kind of rule is one module and one line: here is a small one, from the policy file to advice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typing_extensions import override

from meterline.alerting.core import engine
from meterline.alerting.core.restore import RestoredState, restore
from meterline.alerting.core.state import PolicyChanged, PublishAlert, State, Tick
from meterline.alerting.notify.core.advice import advice
from meterline.alerting.rules.evaluation import Evaluation, amount_text, percent_of
from meterline.alerting.rules.history import PastHours
from meterline.alerting.rules.kind import ScopeRuleKind, ScopeView
from meterline.alerting.rules.measurement import NANO_USD, SpendSum
from meterline.alerting.rules.registry import BUILT_IN, RULE_KINDS, RuleKinds
from meterline.control.policy import file, plan
from meterline.control.policy.file import PolicyFileError
from meterline.schemas.alert import Alert, AlertStatus, RuleType, Severity
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import HOUR_MS, WindowKind, parse_rfc3339
from meterline.schemas.policy import (
    PolicyRecordError,
    RuleSet,
    ScopePolicy,
    decode_policy,
    encode_policy,
)
from meterline.schemas.policy_entry import Usd
from meterline.schemas.policy_kinds import FieldFault, PolicyKinds, RuleEntry
from meterline.schemas.policy_rules import ScopeRule
from meterline.schemas.rule_ref import RuleRef

KEY = "key:acme/k-17"
NOON_MS = parse_rfc3339("2026-10-05T12:00:00Z")


class HourCapRule(ScopeRule):
    """An amount that no hour of a scope should reach."""

    cap_nano_usd: int


class HourCapEntry(RuleEntry):
    """Its fields in the policy file."""

    cap_usd: Usd


class HourCapKind(ScopeRuleKind[HourCapEntry, HourCapRule, int]):
    """It needs no RuleType of its own: its alerts are those of a limit."""

    name = "hour_cap"
    rule_type = RuleType.LIMIT
    published_field = "hour_caps"
    published = HourCapRule
    entry = HourCapEntry

    @override
    def check(self, entry: HourCapEntry, /) -> Iterator[FieldFault]:
        if entry.cap_usd == 0:
            yield "cap_usd", "is zero: every hour would reach it"

    @override
    def compile(self, entry: HourCapEntry, /) -> HourCapRule:
        return HourCapRule(id=entry.id, scope_types=entry.scope_types, cap_nano_usd=entry.cap_usd)

    @override
    def prepare(self, rule: HourCapRule, past: PastHours) -> int:
        return rule.cap_nano_usd

    @override
    def amounts(self, prepared: int) -> Iterator[tuple[WindowKind, int]]:
        yield WindowKind.HOUR, prepared

    @override
    def evaluate(self, rule: HourCapRule, prepared: int | None, view: ScopeView) -> Evaluation:
        spent, cap = view.spent(WindowKind.HOUR), rule.cap_nano_usd
        return Evaluation(
            rule=RuleRef(self.name, rule.id),
            rule_type=self.rule_type,
            level=1 if spent >= cap else 0,
            still_active=spent >= cap,
            window=WindowKind.HOUR,
            period=view.periods[WindowKind.HOUR],
            reset_at_ms=view.windows[WindowKind.HOUR].end_ms,
            observed=spent,
            limit=cap,
            percent=percent_of(spent, cap),
            unit=NANO_USD,
            severity=Severity.WARNING,
            summary=f"{view.subject.text} has spent {amount_text(spent, NANO_USD)} in an hour",
        )

    @override
    def advice(self, rule: RuleRef, /) -> str:
        return "Wait for the next hour."


KINDS = RuleKinds(*BUILT_IN, HourCapKind())
POLICY_KINDS = PolicyKinds(rules=KINDS.in_policy_file)
POLICY = """
version: 1
rules:
  deviation: []
  hour_cap:
    - id: team
      scope_types: [key]
      cap_usd: {cap}
"""


def published(cap: str = "2") -> RuleSet:
    """The rule set of a policy file, as it is read from the topic."""
    document = file.parse_policy(POLICY.format(cap=cap), "policy.yaml", POLICY_KINDS)
    compiled = plan.compile_policy(document, POLICY_KINDS)["rules"]
    decoded = decode_policy(encode_policy(compiled))
    assert isinstance(decoded, RuleSet)
    return decoded


def spend(state: State, dollars: int) -> list[Alert]:
    """What the engine publishes after the hour's sum of the key."""
    amount = dollars * NANO_PER_USD
    total = SpendSum(KEY, WindowKind.HOUR, NOON_MS, NOON_MS + HOUR_MS, amount, 0)
    _, effects = engine.step(state, total, NOON_MS + 1)
    return [effect.alert for effect in effects if isinstance(effect, PublishAlert)]


def test_a_new_kind_goes_from_the_policy_file_to_alert_advice_and_resolution() -> None:
    """Nothing but its module and the registry knows of it."""
    state = engine.start(1, published(), NOON_MS, KINDS)
    engine.step(state, PolicyChanged(KEY, ScopePolicy(scope=KEY)), NOON_MS)
    assert spend(state, 1) == []
    (fired,) = spend(state, 2)
    assert (fired.status, fired.rule_id) == (AlertStatus.FIRING, "hour_cap.team")
    assert fired.summary == "key:acme/k-17 has spent $2.00 in an hour"
    assert advice(fired, KINDS) == "Wait for the next hour."
    assert spend(state, 3) == []
    _, effects = engine.step(state, Tick(complete=True), NOON_MS + HOUR_MS)
    (resolved,) = [effect.alert for effect in effects if isinstance(effect, PublishAlert)]
    assert (resolved.status, resolved.dedup_key) == (AlertStatus.RESOLVED, fired.dedup_key)


def test_a_restart_knows_what_a_new_kind_has_notified() -> None:
    """Its alerts are read back from the topic, and resolved when their rule is gone."""
    state = engine.start(1, published(), NOON_MS, KINDS)
    engine.step(state, PolicyChanged(KEY, ScopePolicy(scope=KEY)), NOON_MS)
    (fired,) = spend(state, 2)
    memory = RestoredState(KINDS)
    memory.add_alert(fired)
    _, effects = restore(memory, NOON_MS + 1, complete=True)
    (over,) = [effect.alert for effect in effects if isinstance(effect, PublishAlert)]
    assert (over.status, over.dedup_key) == (AlertStatus.RESOLVED, fired.dedup_key)


def test_what_a_new_kind_finds_wrong_has_its_place_in_the_file() -> None:
    """As for the kinds that are shipped."""
    with pytest.raises(PolicyFileError) as caught:
        published("0")
    (fault,) = caught.value.faults
    assert (fault.path, fault.line) == ("rules.hour_cap[team].cap_usd", 8)
    assert fault.reason == "is zero: every hour would reach it"


def test_a_change_of_a_new_kind_is_shown_rule_by_rule() -> None:
    """A plan says what changed, and nothing else."""
    (change,) = plan.plan({"rules": published("2")}, {"rules": published("3")})
    assert [str(field) for field in change.fields] == [f"hour_caps[team]: {shown(2)} -> {shown(3)}"]


def test_a_record_of_a_new_kind_that_lacks_a_defaulted_field_is_no_change() -> None:
    """An older record means the default of a field that the kind got later."""
    text = POLICY.format(cap="2").replace("      scope_types: [key]\n", "")
    document = file.parse_policy(text, "policy.yaml", POLICY_KINDS)
    desired = plan.compile_policy(document, POLICY_KINDS)["rules"]
    record = json.loads(encode_policy(desired))
    (rule,) = record["hour_caps"]
    record["hour_caps"] = [{"id": "team", "cap_nano_usd": rule["cap_nano_usd"]}]
    older = decode_policy(json.dumps(record).encode())
    assert older != desired
    assert plan.plan({"rules": older}, {"rules": desired}) == ()


def shown(dollars: int) -> str:
    """A rule in a plan."""
    return f"scope_types ['key'], cap_nano_usd {dollars * NANO_PER_USD}"


def test_a_program_without_the_kind_passes_its_rules_on_unread() -> None:
    """The published list survives, and nothing is evaluated by it."""
    rules = published()
    assert decode_policy(encode_policy(rules)) == rules
    state = engine.start(1, rules, NOON_MS)
    engine.step(state, PolicyChanged(KEY, ScopePolicy(scope=KEY)), NOON_MS)
    assert spend(state, 9) == []


def test_rules_of_another_form_are_refused() -> None:
    """A record that this version of the kind cannot read is no rule set."""
    with pytest.raises(PolicyRecordError):
        KINDS.published(RuleSet.model_validate({"hour_caps": [{"id": "team"}]}))


def test_every_kind_has_its_own_name_and_advice() -> None:
    """The registry is one list; the policy file knows those that it may write."""
    texts = [kind.advice(RuleRef(kind.name, "x")) for kind in BUILT_IN]
    assert len({kind.name for kind in BUILT_IN}) == len(BUILT_IN)
    assert all(texts)
    assert list(RULE_KINDS) == ["deviation", "burn_rate", "no_data", "pipeline"]
    assert {kind.rule_type for kind in BUILT_IN} == set(RuleType)
