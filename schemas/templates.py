"""Message templates: Jinja2, sandboxed and checked before they are published. Pure.

    {{ alert.summary }} ({{ alert.severity | upper }})
    {% for each in alerts %}{{ each.scope }}: {{ each.percent }} %{% endfor %}

A template can only read the variables below and use the filters below. It can call nothing,
include nothing and multiply nothing, and loops cannot be nested: its work is bounded by the
alerts of one message. A name that does not exist is an error when the policy is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meterline.schemas.errors import MeterlineError

ALERT_FIELDS: Mapping[str, str] = {
    "id": "same in every repetition of the message",
    "dedup_key": "same for the firing and its resolution",
    "rule": "name of the rule: budget_month, hour_spend, ...",
    "rule_type": "family of the rule: threshold, limit, ...",
    "status": "firing or resolved",
    "severity": "info, warning, error or critical",
    "scope": "whom it is about: department:acme/research",
    "window": "hour, day or month",
    "period": "which one: 2026-10",
    "threshold": "what was crossed: a percentage, dollars or tokens",
    "threshold_unit": "percent, usd or tokens",
    "observed": "spent in the window, dollars or tokens",
    "limit": "budget or limit, dollars or tokens",
    "amount_unit": "unit of observed and limit: usd or tokens",
    "percent": "observed of limit, a whole number",
    "budget_version": "which version of the budget",
    "also_crossed": "lower percentages crossed at once",
    "summary": "one sentence",
    "action": "what to do, one or two sentences",
    "starts_at": "when it began, RFC 3339",
    "ends_at": "when it ended; empty while it lasts",
    "resets_at": "when its cause ends by itself; may be empty",
    "commands": "throttle commands given for the same cause",
    "reminder": "how many times it was sent again, 0 for the first time",
    "explanation": "baseline, score, excess and top contributors of a history-based rule",
    "driver": "the key and model that drove it; may be empty",
}
"""Fields of an alert in a template, and what they say."""
VARIABLES: Mapping[str, str] = {
    "alert": "the most severe alert of the message",
    "alerts": "all alerts of the message, firing before resolved, most severe first",
    "count": "how many there are",
    "status": "firing while any of them fires, else resolved",
    "severity": "the highest severity",
    "channel": "id of the channel",
}
FILTERS = frozenset(
    {
        *{"upper", "lower", "title", "capitalize", "trim", "replace", "truncate"},
        *{"default", "join", "length", "first", "last", "int", "string"},
    }
)
# Longer texts are refused by some receiver or other; Slack's section ends at 3,000.
OUTPUT_LENGTH_MAX = 10_000

_FORBIDDEN = (
    *(nodes.Call, nodes.Mul, nodes.Pow, nodes.Include, nodes.Import, nodes.FromImport),
    *(nodes.Extends, nodes.Block, nodes.Macro, nodes.CallBlock, nodes.FilterBlock),
    *(nodes.Assign, nodes.AssignBlock, nodes.Getitem, nodes.Div, nodes.FloorDiv, nodes.Mod),
)


class TemplateError(MeterlineError, ValueError):
    """A template that cannot be used; the message says why."""


_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
)
_environment.globals.clear()


def check_template(source: str) -> None:
    """Check a template against the variables that exist.

    Raises:
        TemplateError: syntax, an unknown name or filter, or something that is not allowed.
    """
    try:
        tree = _environment.parse(source)
    except TemplateSyntaxError as error:
        message = f"is not a template: {error.message} (line {error.lineno} of the template)"
        raise TemplateError(message) from error
    for fault in _faults(tree):
        raise TemplateError(fault)
    for sample in _SAMPLES:
        render(source, sample)


def render(
    source: str, variables: Mapping[str, Any], escape: Callable[[str], str] | None = None
) -> str:
    """Fill in a template.

    Args:
        source: the template's text.
        variables: all of VARIABLES.
        escape: applied to every value where it is written out; comparisons see the value itself,
            and the template's own text stays as it is.

    Returns:
        The text, cut at OUTPUT_LENGTH_MAX.

    Raises:
        TemplateError: a name that does not exist.
    """
    try:
        return _compiled(source, escape).render(variables)[:OUTPUT_LENGTH_MAX].strip()
    except (JinjaError, TypeError, ValueError) as error:
        message = f"cannot be filled in: {error}"
        raise TemplateError(message) from error


# More templates than a policy has channels.
@lru_cache(maxsize=1_000)
def _compiled(source: str, escape: Callable[[str], str] | None) -> Template:
    if escape is None:
        return _environment.from_string(source)
    return _environment.overlay(finalize=lambda value: escape(str(value))).from_string(source)


def _faults(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all(_FORBIDDEN):
        yield f"{type(node).__name__} is not allowed in a template (line {node.lineno})"
    for each in tree.find_all(nodes.Filter):
        if each.name not in FILTERS:
            yield f"there is no filter {each.name!r}; known: {', '.join(sorted(FILTERS))}"
    local: set[str] = set()
    for loop in tree.find_all(nodes.For):
        if any(inner is not loop for inner in loop.find_all(nodes.For)):
            yield f"loops cannot be nested (line {loop.lineno})"
        if isinstance(loop.target, nodes.Name):
            local.add(loop.target.name)
    yield from _name_faults(tree, local)


def _name_faults(tree: nodes.Template, local: set[str]) -> Iterator[str]:
    for name in tree.find_all(nodes.Name):
        if name.name not in VARIABLES and name.name not in local | {"loop"}:
            yield f"there is no variable {name.name!r}; known: {', '.join(VARIABLES)}"
    for field in tree.find_all(nodes.Getattr):
        yield from _field_faults(field, local)


def _field_faults(field: nodes.Getattr, local: set[str]) -> Iterator[str]:
    holder = field.node.name if isinstance(field.node, nodes.Name) else ""
    if (holder == "alert" or holder in local) and field.attr not in ALERT_FIELDS:
        known = ", ".join(ALERT_FIELDS)
        yield f"an alert has no field {field.attr!r}; known: {known}"
    elif holder == "loop" and field.attr not in {"first", "last", "index", "length"}:
        yield f"a loop has no field {field.attr!r}; known: first, last, index, length"
    elif not holder or holder in VARIABLES.keys() - {"alert"}:
        yield f"{field.attr!r} of something that has no fields"


def _sample(status: str, ends_at: str) -> dict[str, Any]:
    texts: dict[str, Any] = dict.fromkeys(ALERT_FIELDS, "text")
    alert = {
        **texts,
        "status": status,
        "ends_at": ends_at,
        "percent": 92,
        "budget_version": 1,
        "also_crossed": [80],
        "commands": [],
    }
    return {
        "alert": alert,
        "alerts": [alert, alert],
        "count": 2,
        "status": status,
        "severity": "error",
        "channel": "ops",
    }


_SAMPLES: Sequence[Mapping[str, Any]] = (
    _sample("firing", ""),
    _sample("resolved", "2026-10-31T12:00:00.000Z"),
)
