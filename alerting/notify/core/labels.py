"""Labels: what routes, silences and inhibitions match an alert by. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meterline.schemas.alert import Alert
from meterline.schemas.scopes import ScopeError, ScopeType, parse_scope

# A key's project's department's organisation.
_LEVELS_MAX = 8
_SCOPE_LABELS = ("scope_type", *(kind.value for kind in ScopeType))


def labels_of(alert: Alert, parents: Mapping[str, str]) -> dict[str, str]:
    """Every label of `schemas.matchers.LABELS`; empty where an alert has none.

    Args:
        alert: the alert.
        parents: scope -> the scope above, as policy has it; what it does not name is unknown.
    """
    return {
        **scope_labels(alert.scope, parents),
        "severity": alert.severity.value,
        "rule": alert.rule_id,
        "rule_type": alert.rule_type.value,
        "window": alert.window,
        "state": alert.status.value,
    }


def scope_labels(scope: str, parents: Mapping[str, str]) -> dict[str, str]:
    """The labels that come from the scope of an alert."""
    labels = {"scope": scope, **dict.fromkeys(_SCOPE_LABELS, "")}
    try:
        labels["scope_type"] = parse_scope(scope).type.value
        for each in (scope, *above(scope, parents)):
            part = parse_scope(each)
            labels[part.type.value] = part.identifier or part.organisation
    except ScopeError:
        pass  # an alert about something else, such as the pipeline, has no such labels
    return labels


def above(scope: str, parents: Mapping[str, str]) -> tuple[str, ...]:
    """The scopes above, the nearest first, the organisation always among them."""
    found: list[str] = []
    at = parents.get(scope, "")
    while at and len(found) < _LEVELS_MAX:
        found.append(at)
        at = parents.get(at, "")
    try:
        own = parse_scope(scope)
    except ScopeError:
        return tuple(found)
    organisation = f"{ScopeType.ORGANISATION.value}:{own.organisation}"
    if own.type is not ScopeType.ORGANISATION and organisation not in found:
        found.append(organisation)
    return tuple(found)
