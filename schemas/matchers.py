"""Matchers of labels, in Alertmanager's spelling: `name=value`, `!=`, `=~`, `!~`. Pure.

A regular expression must match the whole value; a label that an alert does not have is the empty
text. Quotes around the value are taken off, so that expressions can be copied from Alertmanager.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from meterline.schemas.errors import MeterlineError

LABELS = (
    "severity",
    "rule",
    "rule_type",
    "scope",
    "scope_type",
    "organisation",
    "department",
    "project",
    "user",
    "key",
    "window",
    "state",
)
"""What an alert can be matched by; a department's own alert has its id under `department` too."""

# A person's expression; longer ones are generated and slow.
EXPRESSION_LENGTH_MAX = 500
# More expressions than a policy of a thousand routes has.
_COMPILED_MAX = 4_096
_SHAPE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)


class MatcherError(MeterlineError, ValueError):
    """A matcher that cannot be read."""


class Matcher(NamedTuple):
    """One condition on one label."""

    name: str
    operator: str
    value: str


@lru_cache(maxsize=_COMPILED_MAX)
def parse_matcher(text: str) -> Matcher:
    """Read one matcher.

    Raises:
        MatcherError: not of the form, an unknown label, or not a regular expression.
    """
    found = _SHAPE.fullmatch(text)
    if found is None or len(text) > EXPRESSION_LENGTH_MAX:
        message = f"{text[:40]!r} is not a matcher: write NAME=VALUE, NAME!=VALUE, =~ or !~"
        raise MatcherError(message)
    name, operator, value = found.groups()
    if name not in LABELS:
        message = f"{name!r} is not a label; known: {', '.join(LABELS)}"
        raise MatcherError(message)
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if operator.endswith("~"):
        _expression(value)
    return Matcher(name, operator, value)


def matches(matcher: Matcher, labels: Mapping[str, str]) -> bool:
    """Whether one condition holds."""
    value = labels.get(matcher.name, "")
    match matcher.operator:
        case "=":
            return value == matcher.value
        case "!=":
            return value != matcher.value
        case "=~":
            return _expression(matcher.value).fullmatch(value) is not None
        case _:
            return _expression(matcher.value).fullmatch(value) is None


def failing(matchers: Iterable[str], labels: Mapping[str, str]) -> str:
    """The first matcher that does not hold, as written; empty if all hold.

    A matcher that cannot be read does not hold: policy is checked before it is published.
    """
    for text in matchers:
        try:
            holds = matches(parse_matcher(text), labels)
        except MatcherError:
            holds = False
        if not holds:
            return text
    return ""


@lru_cache(maxsize=_COMPILED_MAX)
def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        message = f"{text!r} is not a regular expression: {error}"
        raise MatcherError(message) from error
