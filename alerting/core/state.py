"""What the engine knows, what it observes, and what it asks for (effects).

`State` belongs to the engine: `step` changes it and gives it back. Everything inside its mappings
is immutable, so `State.copy` is a cheap and complete snapshot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from meterline.alerting.core.breaker import Breaker
from meterline.alerting.core.lifecycle import Episode
from meterline.alerting.rules.history import SpendHistory
from meterline.alerting.rules.kind import ActiveRule
from meterline.alerting.rules.measurement import SpendSum
from meterline.alerting.rules.pipeline import HealthCheck, HealthCheckKind
from meterline.alerting.rules.registry import RULES, RuleKinds
from meterline.schemas.alert import Alert
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.periods import Calendar, Window, WindowKind
from meterline.schemas.policy import PolicyObject, RuleSet, ScopePolicy
from meterline.schemas.rule_ref import RuleId, RuleRef
from meterline.schemas.throttle import ThrottleCommand


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """A policy object was written or, with `item` None, deleted.

    `spend` is all that is known of the scope's spend: a scope without policy is not evaluated, so
    the engine has no numbers of it.
    """

    object_id: str
    item: PolicyObject | None
    spend: tuple[SpendSum, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. `complete`: every snapshot of the topic has been read."""

    complete: bool


@dataclass(frozen=True, slots=True)
class CommandSeen:
    """A record of throttle.commands; this controller's own come back as well."""

    command: ThrottleCommand


@dataclass(frozen=True, slots=True)
class AlertSeen:
    """A record of alerts that another controller wrote; all policy that it had read is known."""

    alert: Alert


@dataclass(frozen=True, slots=True)
class HealthChecksSeen:
    """One round of health checks: all of the named kinds that are above zero."""

    kinds: frozenset[HealthCheckKind]
    checks: tuple[HealthCheck, ...]


Observation = SpendSum | PolicyChanged | Tick | CommandSeen | AlertSeen | HealthChecksSeen


@dataclass(frozen=True, slots=True)
class PublishThrottle:
    """Write a command to throttle.commands."""

    command: ThrottleCommand


@dataclass(frozen=True, slots=True)
class PublishAlert:
    """Write an alert record to alerts."""

    alert: Alert


class FenceReason(StrEnum):
    """Why this controller must stop."""

    NEWER_EPOCH = "newer_epoch"
    """Another controller has taken over."""
    SAME_EPOCH = "same_epoch"
    """Two controllers started in the same second, and have the same epoch."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Stop: another controller commands."""

    reason: FenceReason
    epoch: int


Effect = PublishThrottle | PublishAlert | Fenced


@dataclass(frozen=True, slots=True)
class ScopeState:
    """One scope with policy, or with a command or alert that is not over."""

    policy: ScopePolicy | None = None
    """What holds now: `base`, with the budget of an override that is in force."""
    base: ScopePolicy | None = None
    """As the policy file says."""
    manual_throttle: ManualThrottle | None = None
    override: BudgetOverride | None = None
    breakers: Mapping[RuleId, Breaker] = field(default_factory=dict)
    episodes: Mapping[RuleRef, Episode] = field(default_factory=dict)
    published: ThrottleCommand | None = None
    """The newest command of the scope on the topic."""
    due_ms: int = 0
    """When time alone asks for the next evaluation; 0 for never."""


class NoChangeRange(NamedTuple):
    """The range of sums in which nothing can change: `cost_low <= cost < cost_high`, and tokens."""

    start_ms: int
    cost_low: int
    cost_high: int
    tokens_low: int
    tokens_high: int


class MinuteHeadroom(NamedTuple):
    """How much more spend burn rates and spikes need.

    Minutes that fall out of a window only take spend away from it, so the headroom that was
    computed holds, less what was spent since: a new minute needs no new computation.
    """

    start_ms: int
    """The minute in which it was computed."""
    more: int
    """How much more must be spent, in whatever minutes, before a rule can hold. A budget's own sum
    that grows by as much causes an evaluation as well: it may come after the minute's, and what is
    left is part of the rule."""
    holds: bool
    """Whether a rule holds already: it fires or is pending, and a timer evaluates it again."""
    each_minute: bool
    """Whether every new minute needs an evaluation: a rule holds, or a minute is below zero after a
    correction, and spend rises when it falls out of a window."""


class PreparedRules(NamedTuple):
    """What the rules of a scope have prepared for an hour."""

    by_rule: tuple[Any, ...]
    """In the order of the rules; None where a rule prepares nothing, or the past is too short."""
    amounts: tuple[tuple[WindowKind, int], ...]
    """The sums of windows from which on one of them answers otherwise."""


@dataclass(slots=True)
class State:
    """The engine's state."""

    epoch: int
    calendar: Calendar
    now_ms: int = 0
    """The latest time of any step; it never goes back."""
    seq: int = 0
    kinds: RuleKinds = RULES
    rules: RuleSet = field(default_factory=RuleSet)
    active_rules: tuple[ActiveRule, ...] = ()
    """The lists of `rules`: what is evaluated for each scope that it applies to."""
    complete: bool = False
    windows: dict[WindowKind, Window] = field(default_factory=dict)
    """The current hour, day and month."""
    periods: dict[WindowKind, str] = field(default_factory=dict)
    roll_ms: int = 0
    """When the first of the current windows ends."""
    scopes: dict[str, ScopeState] = field(default_factory=dict)
    breakpoints: dict[tuple[str, WindowKind], tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )
    """Amounts of cost and tokens at which a rule may answer otherwise, sorted."""
    no_change: dict[tuple[str, WindowKind], NoChangeRange] = field(default_factory=dict)
    spend: dict[tuple[str, WindowKind], SpendSum] = field(default_factory=dict)
    ahead: dict[tuple[str, WindowKind], SpendSum] = field(default_factory=dict)
    """Spend of windows that begin later: relays' clocks may be up to five minutes ahead."""
    timers: list[tuple[int, str]] = field(default_factory=list)
    """A heap of (due, scope); an entry that is not its scope's `due_ms` is out of date."""
    waiting: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Scopes to evaluate when there is time, in that order; a limit that is reached never waits.

    A plain dict walks over all removed entries before it finds its first.
    """
    round_ms: int = 0
    """The moment at which `round_work` was done."""
    round_work: int = 0
    """Evaluations at that moment that could have waited."""
    active: set[str] = field(default_factory=set)
    """Scopes with a restriction or a firing alert: those that the end of a period concerns."""
    held: set[str] = field(default_factory=set)
    """Scopes whose month breaker waits for the state to be known complete."""
    hour: int = 0
    """Number of the current hour: its start divided by HOUR_MS."""
    days: tuple[int, ...] = ()
    """Numbers of the first hours of today and the days before it."""
    alive: set[int] = field(default_factory=set)
    """Hours in which any scope spent: without one, an hour is unknown rather than quiet."""
    scope_rules: dict[str, tuple[ActiveRule, ...]] = field(default_factory=dict)
    """Those that apply to a scope, where there are any."""
    histories: dict[str, SpendHistory] = field(default_factory=dict)
    baselines: dict[str, tuple[int, PreparedRules]] = field(default_factory=dict)
    """Per scope the hour that they hold for, and what each of its rules has prepared for it."""
    minutes: dict[str, MinuteHeadroom] = field(default_factory=dict)
    """Per scope with rules that look at the last minutes."""
    pipeline: dict[tuple[HealthCheckKind, str], Episode] = field(default_factory=dict)
    """Episodes of alerts about the pipeline itself, by kind and subject."""
    silent: set[str] = field(default_factory=set)
    """Scopes with a firing no-data alert: their next spend ends it."""

    def copy(self) -> State:
        """A snapshot that later steps do not touch."""
        return replace(
            self,
            windows=dict(self.windows),
            periods=dict(self.periods),
            scopes=dict(self.scopes),
            breakpoints=dict(self.breakpoints),
            no_change=dict(self.no_change),
            spend=dict(self.spend),
            ahead=dict(self.ahead),
            timers=list(self.timers),
            waiting=OrderedDict(self.waiting),
            active=set(self.active),
            held=set(self.held),
            alive=set(self.alive),
            scope_rules=dict(self.scope_rules),
            histories={scope: history.copy() for scope, history in self.histories.items()},
            baselines=dict(self.baselines),
            minutes=dict(self.minutes),
            pipeline=dict(self.pipeline),
            silent=set(self.silent),
        )
