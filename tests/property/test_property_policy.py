"""Properties of policy as code: plans lead where they should, money is exact, nothing crashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import cycle
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from meterline.alerting.notify.channels.registry import CHANNEL_KINDS
from meterline.control.policy.document import document_type
from meterline.control.policy.file import ChangeAction, PolicyChange, PolicyFileError, plan
from meterline.operations.policy import KINDS, compile_policy, parse_policy
from meterline.schemas.money import usd_text
from meterline.schemas.policy import PolicyObject, ScopePolicy, decode_policy, encode_policy
from meterline.schemas.policy_entry import AMOUNT_USD_MAX, COUNT_MAX

NANO_MAX = AMOUNT_USD_MAX * 10**9
MODELS = ("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash")


def maybe(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A field that may be absent."""
    return st.one_of(st.just({}), values.map(lambda value: {name: value}))


@st.composite
def scope_bodies(draw: st.DrawFn, level: int) -> dict[str, Any]:
    """Fields of one scope; deeper levels draw smaller amounts."""
    most = 10 ** (17 - level)
    amounts = st.integers(0, most).map(usd_text)
    counts = st.integers(0, min(most, COUNT_MAX))
    body: dict[str, Any] = {}
    budget = draw(maybe("month_usd", amounts)) | draw(maybe("day_usd", amounts))
    limits = (
        draw(maybe("requests_per_minute", counts))
        | draw(maybe("day_tokens", counts))
        | draw(maybe("hour_spend_usd", amounts))
    )
    if budget:
        body["budget"] = budget
    if limits:
        body["limits"] = limits
    return (
        body
        | draw(maybe("name", st.sampled_from(["", "A", "no", "1.10"])))
        | draw(maybe("throttle_mode", st.sampled_from(["reject", "queue"])))
        | draw(maybe("disabled", st.booleans()))
    )


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Good policy files."""

    def children(prefix: str, level: int, most: int) -> list[dict[str, Any]]:
        return [
            {"id": f"{prefix}-{number}", **draw(scope_bodies(level))}
            for number in range(draw(st.integers(0, most)))
        ]

    departments = children("d", 1, 3)
    for department in departments:
        department["projects"] = children(f"{department['id']}-p", 2, 2)
        department["keys"] = children(f"{department['id']}-k", 3, 2)
    organisation = {
        "id": "acme",
        "limits": {"allowed_models": list(draw(st.permutations(MODELS)))},
        "users": children("u", 1, 2),
        "departments": departments,
    }
    thresholds = sorted(draw(st.sets(st.integers(1, 200), max_size=5)))
    document = {
        "version": 1,
        "time_zone": draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"])),
        "organisations": [organisation],
        "rules": {"thresholds_percent": thresholds},
    }
    _lower(organisation, {})
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


def _lower(entry: dict[str, Any], above: Mapping[tuple[str, str], Decimal]) -> None:
    """Put no child above its parent."""
    most = dict(above)
    for holder in ("budget", "limits"):
        for name, value in entry.get(holder, {}).items():
            if name == "allowed_models":
                continue
            bounded = min(Decimal(value), most.get((holder, name), Decimal(NANO_MAX)))
            most[holder, name] = bounded
            entry[holder][name] = str(bounded) if isinstance(value, str) else int(bounded)
    for field in ("users", "departments", "projects", "keys"):
        for child in entry.get(field, []):
            _lower(child, most)


def applied(
    current: Mapping[str, PolicyObject], changes: tuple[PolicyChange, ...]
) -> dict[str, PolicyObject]:
    """What readers of the topic have after the changes."""
    after = dict(current)
    for change in changes:
        if change.after is None:
            del after[change.object_id]
        else:
            after[change.object_id] = decode_policy(encode_policy(change.after))
    return after


@given(documents(), documents())
def test_a_plan_that_was_applied_leaves_nothing_to_do(first: str, second: str) -> None:
    """From any published state, applying a plan once makes the next plan empty."""
    start = applied({}, plan({}, compile_policy(parse_policy(first, "first"))))
    desired = compile_policy(parse_policy(second, "second"))
    changes = plan(start, desired)
    after = applied(start, changes)
    assert plan(after, desired) == ()
    assert after.keys() == desired.keys()
    assert plan(start, desired) == changes


@given(documents(), documents())
def test_versions_only_rise_and_only_with_a_change(first: str, second: str) -> None:
    """Version rises by one per change; budget_version with it, only for money or token limits."""
    start = applied({}, plan({}, compile_policy(parse_policy(first, "first"))))
    changes = plan(start, compile_policy(parse_policy(second, "second")))
    for change in changes:
        if change.action is not ChangeAction.CHANGED:
            continue
        assert change.before is not None
        assert change.after is not None
        assert change.after.version == change.before.version + 1
        assert change.fields
        if isinstance(change.before, ScopePolicy) and isinstance(change.after, ScopePolicy):
            rearms = any(
                each.field.startswith("budget.") or "spend" in each.field or "tokens" in each.field
                for each in change.fields
            )
            assert change.after.budget_version == change.before.budget_version + rearms


@given(documents())
def test_a_file_is_read_the_same_whatever_the_style_it_is_written_in(text: str) -> None:
    """Flow and block style, quoted and plain, give equal documents."""
    document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - text only
    quoted = yaml.safe_dump(document, default_flow_style=True, default_style='"')
    assert parse_policy(quoted, "p") == parse_policy(text, "p")


@given(st.integers(0, NANO_MAX), st.integers(0, 4))
def test_every_amount_of_nano_dollars_survives_the_file(nano_usd: int, zeros: int) -> None:
    """Any whole number of nano-dollars written as a decimal is read back exactly."""
    written = usd_text(nano_usd) + "0" * zeros
    text = f"version: 1\norganisations: [{{id: a, budget: {{month_usd: {written}}}}}]"
    item = compile_policy(parse_policy(text, "p"))["organisation:a"]
    assert isinstance(item, ScopePolicy)
    assert item.budget.month_nano_usd == nano_usd


@given(st.integers(0, 10**12), st.integers(10, 30), st.integers(1, 9))
def test_no_amount_finer_than_a_nano_dollar_is_rounded(whole: int, place: int, digit: int) -> None:
    """A digit beyond the ninth place is a fault, however far behind it stands."""
    written = f"{whole // 10}.{'0' * (place - 1)}{digit}"
    text = f"version: 1\norganisations: [{{id: a, budget: {{month_usd: {written}}}}}]"
    with pytest.raises(PolicyFileError, match="finer than a nano-dollar"):
        parse_policy(text, "p")


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["acme", "redirect", "https://x", "1e99", "-1", "2026-01-01", "a\nb"]),
)  # fmt: skip
_FIELDS = st.sampled_from(
    [
        "version", "organisations", "departments", "projects", "keys", "users", "id", "budget",
        "limits", "month_usd", "allowed_models", "rules", "breaker", "thresholds_percent",
        "notify", "channels", "url", "type", "secret_env", "time_zone", "fallback_model", "a\nb",
    ]
)  # fmt: skip
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_FIELDS, inner, max_size=5)
    ),
    max_leaves=25,
)


@given(_TREES)
def test_any_yaml_is_a_policy_or_has_faults_never_a_crash(tree: Any) -> None:
    """Whatever an operator writes with the right words in wrong places, the answer is a list."""
    _accept_or_explain(yaml.safe_dump(tree, allow_unicode=True))


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_has_faults_never_a_crash(text: str) -> None:
    """The same for text that need not be YAML."""
    _accept_or_explain(text)


# What str.format takes for a field, a position or nonsense, and what patterns of fields hold.
_BRACED = st.one_of(
    st.sampled_from(["{", "}", "{}", "{0}", "{0,39}", "{expected}", "{ge!r:>9}", "{{x}}", "{a.b[0]}"]),
    st.text("{}0,39a!:[].", max_size=12),
)  # fmt: skip


def _filled(entry: type[BaseModel], texts: Iterator[str], written: dict[str, Any]) -> Any:
    """A mapping of an entry's form with a text in every field that is not written already."""
    body: dict[str, Any] = {}
    for name, info in entry.model_fields.items():
        inner = _entry_of(info.annotation)
        is_list = "tuple" in str(info.annotation)
        value: Any = next(texts) if inner is None else _filled(inner, texts, {})
        body[info.alias or name] = [value] if is_list else value
    return {**body, **written}


def _entry_of(annotation: Any) -> type[BaseModel] | None:
    """The entry that a field holds, if it holds any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_entry_of, get_args(annotation))), None)


@given(st.lists(_BRACED, min_size=1, max_size=9), st.sampled_from([*CHANNEL_KINDS, "{0,39}"]))
def test_text_with_braces_in_every_field_is_a_policy_or_has_faults(
    texts: list[str], type_: str
) -> None:
    """No text of the file is taken for a template of a message."""
    source = cycle(texts)
    kind = CHANNEL_KINDS.get(type_, CHANNEL_KINDS["email"])
    document = _filled(document_type(KINDS), source, {"version": 1})
    document["notify"]["channels"] = [_filled(kind.entry, source, {"type": type_})]
    _accept_or_explain(yaml.safe_dump(document, allow_unicode=True))
    for section in ("organisations", "rules", "notify", "finance"):
        _accept_or_explain(yaml.safe_dump({"version": 1, section: document[section]}))


def test_a_message_that_quotes_a_pattern_is_shown_as_it_is() -> None:
    """The id of a journal has a pattern with braces, which the reason shows."""
    with pytest.raises(PolicyFileError, match=r"finance\.journals\[A\]\.id: .*\{0,39\}"):
        parse_policy("version: 1\nfinance: {journals: [{id: A, type: sap}]}", "p")


def _accept_or_explain(text: str) -> None:
    faults: list[str] = []
    try:
        compile_policy(parse_policy(text, "p"))
    except PolicyFileError as error:
        faults = [str(fault) for fault in error.faults]
        assert faults, "refused without a reason"
    assert all(fault.isprintable() for fault in faults)
