"""A kind of rule: one module that holds everything about it, and one line in the registry. Pure.

    policy file   name, entry, check, compile, published, published_field   (schemas.policy_kinds)
    evaluation    applies_to, prepare, evaluate
    when to look  amounts, headroom, recheck_ms: the engine evaluates a rule only where its answer
                  may change, so a kind says at which spend and at which time that is
    alert         rule_type, advice
An `AlertKind` is all that notifications need to know; a `ScopeRuleKind` is evaluated by the engine
for every scope that it applies to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from meterline.alerting.rules.evaluation import Evaluation, Subject
from meterline.alerting.rules.history import PastHours, SpendHistory
from meterline.alerting.rules.measurement import SpendSum
from meterline.schemas.alert import RuleType
from meterline.schemas.periods import Calendar, Window, WindowKind
from meterline.schemas.policy import PolicyRecordError, RuleSet, ScopePolicy
from meterline.schemas.policy_kinds import RuleEntry, RuleKind
from meterline.schemas.policy_rules import ScopeRule
from meterline.schemas.rule_ref import RuleRef
from meterline.schemas.scopes import ScopeType

EntryT = TypeVar("EntryT", bound=RuleEntry)
RuleT = TypeVar("RuleT", bound=ScopeRule)
PreparedT = TypeVar("PreparedT")


class AlertKind(ABC):
    """A kind of rule, as far as its alerts go."""

    name: str
    """The first part of the rule's spelling, `deviation` of `deviation.day`."""
    rule_type: RuleType
    """What alerts carry: a closed list of the wire, which a kind of its own adds to."""

    @abstractmethod
    def advice(self, rule: RuleRef, /) -> str:
        """What on-call does about a firing alert, in one or two sentences."""


class ScopeView(NamedTuple):
    """What a rule may look at: one scope, now."""

    policy: ScopePolicy
    now_ms: int
    minute: int
    """Number of the current minute."""
    calendar: Calendar
    windows: Mapping[WindowKind, Window]
    """The current hour, day and month."""
    periods: Mapping[WindowKind, str]
    sums: Mapping[tuple[str, WindowKind], SpendSum]
    """The newest sums of all scopes, which may be of a window that is over."""
    history: SpendHistory
    """The scope's last hours and minutes."""

    @property
    def subject(self) -> Subject:
        """What an alert is about."""
        return Subject(self.policy.scope, self.policy.name)

    def spent(self, kind: WindowKind) -> int:
        """Nano-USD of the current hour, day or month."""
        spend = self.sums.get((self.policy.scope, kind))
        if spend is None or spend.start_ms != self.windows[kind].start_ms:
            return 0
        return spend.cost_nano_usd


class ScopeRuleKind(AlertKind, RuleKind[EntryT, RuleT], Generic[EntryT, RuleT, PreparedT]):
    """A kind of rule that is evaluated for every scope that it applies to."""

    published: type[RuleT]
    """The model of its rules in the published RuleSet."""
    freezes_learning = False
    """Whether the hours in which an alert of it fires are not learnt from."""
    ended_by_spend = False
    """Whether the scope's next spend may end an alert of it."""

    def rules_of(self, rule_set: RuleSet) -> tuple[RuleT, ...]:
        """Its published rules; a kind that RuleSet does not know keeps them beside its fields.

        Raises:
            PolicyRecordError: a list that another version of the kind has published.
        """
        if self.published_field in RuleSet.model_fields:
            known: tuple[RuleT, ...] = getattr(rule_set, self.published_field)
            return known
        written = (rule_set.model_extra or {}).get(self.published_field, ())
        try:
            return tuple(self.published.model_validate(each) for each in written)
        except (TypeError, ValidationError) as error:
            message = f"no rules of kind {self.name}"
            raise PolicyRecordError(message) from error

    def applies_to(self, rule: RuleT, scope_type: ScopeType, policy: ScopePolicy) -> bool:
        """Whether a rule is evaluated for a scope; asked when rules or policy change."""
        del policy
        return scope_type in rule.scope_types

    def reads_minutes(self, rule: RuleT) -> bool:
        """Whether a rule looks at the last minutes, and may fire in any of them."""
        del rule
        return False

    def prepare(self, rule: RuleT, past: PastHours) -> PreparedT | None:
        """What holds for the whole current hour, computed once per scope and hour."""
        del rule, past
        return None

    @abstractmethod
    def evaluate(self, rule: RuleT, prepared: PreparedT | None, view: ScopeView) -> Evaluation:
        """What a rule says now."""

    def amounts(self, prepared: PreparedT) -> Iterable[tuple[WindowKind, int]]:
        """The sums of a current hour, day or month from which on the answer is another one.

        Spend of a window only grows; what a correction takes away is seen by the next evaluation.
        """
        del prepared
        return ()

    def headroom(self, rule: RuleT, prepared: PreparedT | None, view: ScopeView) -> Iterable[int]:
        """Spend in the current minute that makes the rule hold; 0 or less where it does.

        Asked of kinds that read minutes. `prepared` is None while the hour's is not known: the
        hour's first spend asks for it.
        """
        del rule, prepared, view
        return ()

    def recheck_ms(self, rule: RuleT, view: ScopeView, *, is_active: bool) -> int:
        """When time alone may change the answer; 0 for never.

        Args:
            rule: the rule.
            view: the scope now.
            is_active: whether an alert of the kind fires or is pending.
        """
        del rule, view, is_active
        return 0


class ActiveRule(NamedTuple):
    """A published rule and its kind."""

    kind: ScopeRuleKind[Any, Any, Any]
    ref: RuleRef
    rule: Any
    reads_minutes: bool = False
    """Whether it looks at the last minutes (`ScopeRuleKind.reads_minutes`)."""
