"""What must hold between the fields of a policy document; every finding has its path.

The sum of the children's budgets is deliberately not compared with the parent's: budgets are
ceilings and not shares. A parent's own budget is enforced anyway (the most restrictive scope of a
request wins), and letting ten projects have 20 % each of what they will hardly all need is how
organisations plan. A single child above its parent is refused because its number could never
take effect: its author expects something that will not happen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from meterline.control.policy.document import (
    DepartmentEntry,
    OrganisationEntry,
    PolicyDocument,
    RulesEntry,
    ScopeEntry,
)
from meterline.control.policy.notify_checks import check_notify
from meterline.control.policy.rules_checks import check_rule_kinds
from meterline.control.policy.yaml_tree import Path
from meterline.schemas.policy_entry import plain_usd
from meterline.schemas.policy_kinds import PolicyKinds
from meterline.schemas.scopes import (
    Scope,
    ScopeError,
    ScopeType,
    check_identifier,
    check_organisation,
)
from meterline.schemas.throttle import ThrottleMode


class Finding(NamedTuple):
    """One thing that does not make sense."""

    path: Path
    reason: str


class PlacedEntry(NamedTuple):
    """An entry of the hierarchy, where it stands and what stands above it."""

    scope: Scope
    entry: ScopeEntry
    path: Path
    parents: tuple[PlacedEntry, ...]
    """The nearest first."""


def placed_entries(document: PolicyDocument) -> Iterator[PlacedEntry]:
    """Every scope that the document names, parents before their children."""
    for position, organisation in enumerate(document.organisations):
        name = organisation.id
        placed = PlacedEntry(
            Scope(ScopeType.ORGANISATION, name), organisation, ("organisations", position), ()
        )
        yield placed
        yield from _children(placed, ScopeType.USER, "users", organisation.users)
        yield from _departments(placed, organisation)


def _departments(above: PlacedEntry, organisation: OrganisationEntry) -> Iterator[PlacedEntry]:
    for placed in _children(above, ScopeType.DEPARTMENT, "departments", organisation.departments):
        yield placed
        assert isinstance(placed.entry, DepartmentEntry)
        yield from _children(placed, ScopeType.KEY, "keys", placed.entry.keys)
        projects = placed.entry.projects
        for project, entry in zip(
            _children(placed, ScopeType.PROJECT, "projects", projects), projects, strict=True
        ):
            yield project
            yield from _children(project, ScopeType.KEY, "keys", entry.keys)


def _children(
    above: PlacedEntry, kind: ScopeType, field: str, entries: Sequence[ScopeEntry]
) -> Iterator[PlacedEntry]:
    for position, entry in enumerate(entries):
        yield PlacedEntry(
            Scope(kind, above.scope.organisation, entry.id),
            entry,
            (*above.path, field, position),
            (above, *above.parents),
        )


def check(document: PolicyDocument, kinds: PolicyKinds) -> Iterator[Finding]:
    """Everything that does not make sense in a well-typed document."""
    if document.version is None:
        yield Finding(("version",), "is required: begin the file with 'version: 1'")
    yield from _check_time_zone(document.time_zone)
    yield from (Finding(*each) for each in check_rule_kinds(document.rules, kinds))
    yield from _check_rules(document.rules)
    yield from (Finding(*each) for each in check_notify(document.notify, kinds))
    first: dict[Scope, Path] = {}
    for placed in placed_entries(document):
        yield from _check_identifier(placed)
        if placed.scope in first:
            yield Finding((*placed.path, "id"), _duplicate(placed))
        first.setdefault(placed.scope, placed.path)
        yield from _check_amounts(placed)
        yield from _check_models(placed)


def _duplicate(placed: PlacedEntry) -> str:
    if placed.scope.type is ScopeType.ORGANISATION:
        return f"organisation {placed.entry.id!r} is there twice"
    return (
        f"{placed.scope.type.value} {placed.entry.id!r} is there twice: ids are unique within "
        f"organisation {placed.scope.organisation!r}"
    )


def _check_identifier(placed: PlacedEntry) -> Iterator[Finding]:
    try:
        if placed.scope.type is ScopeType.ORGANISATION:
            check_organisation(placed.entry.id)
        else:
            check_identifier(placed.entry.id, f"a {placed.scope.type.value}'s id")
    except ScopeError as error:
        yield Finding((*placed.path, "id"), str(error))


# (field, whether it is money) of what a child may not have more of than its parent.
_BUDGETS = ("month_usd", "day_usd")
_MONEY_LIMITS = ("hour_spend_usd", "day_spend_usd")
_COUNT_LIMITS = ("requests_per_minute", "tokens_per_minute", "burst_requests", "day_tokens")


def _check_amounts(placed: PlacedEntry) -> Iterator[Finding]:
    for holder, names in (("budget", _BUDGETS), ("limits", (*_MONEY_LIMITS, *_COUNT_LIMITS))):
        for name in names:
            own: int | None = getattr(getattr(placed.entry, holder), name)
            above = _nearest(placed, holder, name)
            if own is None or above is None:
                continue
            parent, most = above
            if own > most:
                show = str if name in _COUNT_LIMITS else plain_usd
                yield Finding(
                    (*placed.path, holder, name),
                    f"{show(own)} is above {show(most)} of {parent.scope}: a child cannot have "
                    f"more than its parent",
                )


def _nearest(placed: PlacedEntry, holder: str, name: str) -> tuple[PlacedEntry, int] | None:
    for parent in placed.parents:
        most: int | None = getattr(getattr(parent.entry, holder), name)
        if most is not None:
            return parent, most
    return None


def _check_models(placed: PlacedEntry) -> Iterator[Finding]:
    entry = placed.entry
    own = entry.limits.allowed_models
    above = next(
        (each for each in placed.parents if each.entry.limits.allowed_models is not None), None
    )
    permitted = above.entry.limits.allowed_models if above is not None else None
    if own is not None and above is not None and permitted is not None:
        more = sorted(set(own) - set(permitted))
        if more:
            yield Finding(
                (*placed.path, "limits", "allowed_models"),
                f"{', '.join(more)} not allowed by {above.scope}: a child's models must be among "
                f"its parent's",
            )
    if entry.throttle_mode is ThrottleMode.REDIRECT and not entry.fallback_model:
        yield Finding(
            (*placed.path, "fallback_model"),
            "is required with throttle_mode redirect: the model that requests are redirected to",
        )
    allowed = own if own is not None else permitted
    if entry.fallback_model and allowed is not None and entry.fallback_model not in allowed:
        yield Finding(
            (*placed.path, "fallback_model"),
            f"{entry.fallback_model!r} is not among the allowed_models of this scope",
        )


def _check_time_zone(name: str) -> Iterator[Finding]:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # KeyError is ZoneInfoNotFoundError's base; ValueError: "../x"; OSError: a directory.
        yield Finding(
            ("time_zone",), f"{name!r} is not a time zone; write an IANA name such as Europe/Berlin"
        )


def _check_rules(rules: RulesEntry) -> Iterator[Finding]:
    for left, right in pairwise(rules.thresholds_percent):
        if right <= left:
            reason = f"{right} is there twice" if right == left else f"{right} stands after {left}"
            yield Finding(
                ("rules", "thresholds_percent"), f"{reason}: write them ascending, each once"
            )
    breaker = rules.breaker
    steps = (
        ("throttle_at_percent", breaker.throttle_at_percent),
        ("half_open_at_percent", breaker.half_open_at_percent),
        ("open_at_percent", breaker.open_at_percent),
    )
    for (lower_name, lower), (higher_name, higher) in pairwise(steps):
        if lower >= higher:
            yield Finding(
                ("rules", "breaker", higher_name),
                f"{higher} must be above {lower_name}, which is {lower}: the breaker goes from "
                f"throttled over half-open to open",
            )
    if breaker.half_open_to_percent > breaker.throttle_to_percent:
        yield Finding(
            ("rules", "breaker", "half_open_to_percent"),
            f"{breaker.half_open_to_percent} must not be above throttle_to_percent, which is "
            f"{breaker.throttle_to_percent}: half-open admits less than throttled",
        )
