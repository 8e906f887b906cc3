"""The policy file: what is refused, with path, line and reason; what is read, exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from meterline.alerting.notify.channels.registry import CHANNEL_KINDS
from meterline.alerting.notify.channels.webhook import WebhookChannel
from meterline.control.policy.file import PolicyFault, PolicyFileError
from meterline.control.policy.yaml_tree import DEPTH_MAX, FILE_CHARACTERS_MAX
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.policy import (
    NOTIFY_ID,
    RULES_ID,
    BreakerPolicy,
    NotifyPolicy,
    RuleSet,
    ScopePolicy,
)
from meterline.schemas.throttle import ThrottleMode

DEMO = Path(__file__).parents[3] / "app" / "local" / "demo_policy.yaml"

FULL = """\
version: 1
time_zone: Europe/Berlin
organisations:
  - id: acme
    name: Acme Corp
    budget: {month_usd: 1000, day_usd: 80.50}
    limits:
      requests_per_minute: 6000
      tokens_per_minute: 2000000
      burst_requests: 200
      hour_spend_usd: "100"
      day_spend_usd: 500
      day_tokens: 50000000
      allowed_models: [gpt-4.1, gemini-2.5-flash]
    throttle_mode: redirect
    fallback_model: gemini-2.5-flash
    fail_open: no
    users:
      - {id: ana@acme.test, budget: {day_usd: 5}}
    departments:
      - id: research
        cost_center: CC-100
        budget: {month_usd: 50}
        keys:
          - {id: k-0, disabled: true}
        projects:
          - id: chatbot
            budget: {month_usd: 20}
            keys:
              - {id: k-1, name: first, limits: {allowed_models: [gpt-4.1]}}
rules:
  thresholds_percent: [10, 100]
  breaker: {throttle_at_percent: 60, dwell_seconds: 0}
notify:
  channels:
    - id: ops
      type: webhook
      url: https://alerts.example.com/x
      secret_env: METERLINE_OPS_SECRET
      min_severity: warning
"""


def faults(text: str) -> list[PolicyFault]:
    with pytest.raises(PolicyFileError) as caught:
        parse_policy(text, "policy.yaml")
    return list(caught.value.faults)


def only_fault(text: str) -> PolicyFault:
    (fault,) = faults(text)
    return fault


def changed(old: str, new: str) -> str:
    """The full example with one text replaced."""
    assert FULL.count(old) == 1, f"{old!r} is there {FULL.count(old)} times"
    return FULL.replace(old, new)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def organisation(body: str) -> str:
    """A file whose only organisation has this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"version: 1\norganisations:\n  - id: acme\n{lines}\n"


def test_a_full_file_compiles_to_one_object_per_scope_and_the_rules() -> None:
    """Every field of the file is found again in the published objects, in nano-dollars."""
    objects = compile_policy(parse_policy(FULL, "policy.yaml"))
    assert set(objects) == {
        RULES_ID,
        NOTIFY_ID,
        "organisation:acme",
        "user:acme/ana@acme.test",
        "department:acme/research",
        "key:acme/k-0",
        "project:acme/chatbot",
        "key:acme/k-1",
    }
    assert objects[RULES_ID] == RuleSet(
        time_zone="Europe/Berlin",
        thresholds_percent=(10, 100),
        breaker=BreakerPolicy(throttle_at_percent=60, dwell_seconds=0),
    )
    assert objects[NOTIFY_ID] == NotifyPolicy(
        channels=(
            WebhookChannel(
                id="ops",
                url="https://alerts.example.com/x",
                secret_env="METERLINE_OPS_SECRET",
                min_severity="warning",
            ),
        )
    )
    acme = objects["organisation:acme"]
    assert isinstance(acme, ScopePolicy)
    assert (acme.parent, acme.name, acme.version, acme.budget_version) == ("", "Acme Corp", 1, 1)
    assert (acme.budget.month_nano_usd, acme.budget.day_nano_usd) == (1000 * 10**9, 80_500_000_000)
    assert acme.limits.model_dump() == {
        "requests_per_minute": 6000,
        "tokens_per_minute": 2_000_000,
        "burst_requests": 200,
        "hour_spend_nano_usd": 100 * 10**9,
        "day_spend_nano_usd": 500 * 10**9,
        "day_tokens": 50_000_000,
        "allowed_models": ("gpt-4.1", "gemini-2.5-flash"),
    }
    assert (acme.throttle_mode, acme.fallback_model) == (ThrottleMode.REDIRECT, "gemini-2.5-flash")
    assert not acme.fail_open
    research = objects["department:acme/research"]
    assert isinstance(research, ScopePolicy)
    assert (research.parent, research.cost_center) == ("organisation:acme", "CC-100")
    parents = {name: item.parent for name, item in objects.items() if isinstance(item, ScopePolicy)}
    assert parents["key:acme/k-0"] == "department:acme/research"
    assert parents["project:acme/chatbot"] == "department:acme/research"
    assert parents["key:acme/k-1"] == "project:acme/chatbot"
    assert parents["user:acme/ana@acme.test"] == "organisation:acme"
    disabled = objects["key:acme/k-0"]
    assert isinstance(disabled, ScopePolicy)
    assert disabled.disabled


def test_the_sample_that_ships_is_a_good_policy() -> None:
    """The sample is accepted and names the eight departments that a replay uses."""
    document = parse_policy(DEMO.read_text(encoding="utf-8"), DEMO.name)
    departments = [department.id for department in document.organisations[0].departments]
    assert departments == [
        "research",
        "support",
        "marketing",
        "finance",
        "engineering",
        "sales",
        "legal",
        "operations",
    ]


def test_the_smallest_file_has_the_defaults() -> None:
    """A file with a version alone is a policy: default rules, no scopes, no channels."""
    objects = compile_policy(parse_policy("version: 1", "policy.yaml"))
    assert objects == {RULES_ID: RuleSet(), NOTIFY_ID: NotifyPolicy()}


@pytest.mark.parametrize(
    ("written", "nano_usd"),
    [
        ("0.1", 100_000_000),
        ("'0.1'", 100_000_000),
        ("0.000000001", 1),
        ("0.123456789", 123_456_789),
        ("1000", 1_000_000_000_000),
        ("9007199.254740993", 9_007_199_254_740_993),
        ("999999999999.999999999", 999_999_999_999_999_999_999),
        ("1e3", 1_000_000_000_000),
        ("0.10000000000000", 100_000_000),
        ("0", 0),
    ],
)
def test_money_is_read_exactly_as_written(written: str, nano_usd: int) -> None:
    """Dollars become nano-dollars without passing through a float."""
    text = organisation(f"budget: {{month_usd: {written}}}")
    acme = compile_policy(parse_policy(text, "p"))["organisation:acme"]
    assert isinstance(acme, ScopePolicy)
    assert acme.budget.month_nano_usd == nano_usd


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("0.0000000001", "finer than a nano-dollar"),
        ("0.10000000000000000000000000000000000000001", "finer than a nano-dollar"),
        ("-1", "must not be negative; got -1"),
        ("-0.000000001", "must not be negative"),
        ("a lot", "must be an amount of dollars"),
        ("12 USD", "must be an amount of dollars"),
        ("1,000", "must be an amount of dollars"),
        ("[1]", "must be an amount of dollars"),
        (".nan", "must be an amount of dollars"),
        ("NaN", "at most"),
        ("sNaN", "at most"),
        ("Infinity", "at most"),
        ("1e999999999", "must be at most 1,000,000,000,000 dollars"),
        ("1:30", "must be an amount of dollars"),
    ],
)
def test_money_that_is_no_exact_amount_is_refused(written: str, reason: str) -> None:
    """What is finer than a nano-dollar, negative, too large or no number names its reason."""
    fault = only_fault(
        organisation(
            f"budget:\n  day_usd: {written!r}"
            if "," in written
            else f"budget:\n  day_usd: {written}"
        )
    )
    assert (fault.path, fault.line) == ("organisations[acme].budget.day_usd", 5)
    assert reason in fault.reason


_K1_LIMITS = "organisations[acme].departments[research].projects[chatbot].keys[k-1].limits"
*_TYPES, _LAST_TYPE = (repr(name) for name in CHANNEL_KINDS)
_CHANNEL_TYPES = f"{', '.join(_TYPES)} or {_LAST_TYPE}"
_REFUSALS: list[tuple[str, str, str, str, str]] = [
    # what, old text, new text, path, reason
    ("missing-version", "version: 1\n", "", "version", "is required"),
    ("other-version", "version: 1", "version: 2", "version", "must be '1'; got '2'"),
    ("unknown-field", "cost_center:", "cost_centre:",
     "organisations[acme].departments[research].cost_centre", "did you mean 'cost_center'?"),
    ("unknown-budget-field", "{month_usd: 20}", "{month: 20}",
     "organisations[acme].departments[research].projects[chatbot].budget.month", "'month_usd'"),
    ("far-off-field", "time_zone: Europe/Berlin", "colour: red", "colour",
     "known here: version, time_zone, organisations, rules, notify"),
    ("unknown-breaker-field", "dwell_seconds", "dwel_seconds",
     "rules.breaker.dwel_seconds", "did you mean 'dwell_seconds'?"),
    ("text-for-number", "burst_requests: 200", "burst_requests: many",
     "organisations[acme].limits.burst_requests", "must be a whole number; got 'many'"),
    ("fraction-for-number", "burst_requests: 200", "burst_requests: 1.5",
     "organisations[acme].limits.burst_requests", "must be a whole number; got '1.5'"),
    ("negative-limit", "burst_requests: 200", "burst_requests: -1",
     "organisations[acme].limits.burst_requests", "must not be negative; got '-1'"),
    ("text-for-bool", "fail_open: no", "fail_open: perhaps",
     "organisations[acme].fail_open", "must be true or false; got 'perhaps'"),
    ("unknown-mode", "throttle_mode: redirect", "throttle_mode: refuse",
     "organisations[acme].throttle_mode", "'reject', 'queue' or 'redirect'; got 'refuse'"),
    ("text-for-list", "thresholds_percent: [10, 100]", "thresholds_percent: 10",
     "rules.thresholds_percent", "must be a list"),
    ("text-for-mapping", "breaker: {throttle_at_percent: 60, dwell_seconds: 0}", "breaker: strict",
     "rules.breaker", "must be a mapping"),
    ("id-of-a-wrong-type", "id: k-0", "id: [k-0]",
     "organisations[acme].departments[research].keys[0].id", "must be text"),
    ("missing-id", "{id: k-0, disabled: true}", "{disabled: true}",
     "organisations[acme].departments[research].keys[0].id", "is required"),
    ("empty-id", "id: k-0", "id: ''",
     "organisations[acme].departments[research].keys[].id", "a key's id must have 1 to 200"),
    ("bad-organisation", "id: acme\n", "id: ac/me\n",
     "organisations[ac/me].id", "without '/' and ':'"),
    ("duplicate-id", "id: k-1", "id: k-0",
     "organisations[acme].departments[research].projects[chatbot].keys[k-0].id",
     "key 'k-0' is there twice: ids are unique within organisation 'acme'"),
    ("field-twice", "    name: Acme Corp\n", "    name: Acme Corp\n    name: Acme\n",
     "organisations[acme].name", "is written twice; the first is in line 5"),
    ("budget-above-parent", "{month_usd: 20}", "{month_usd: 50.01}",
     "organisations[acme].departments[research].projects[chatbot].budget.month_usd",
     "50.01 is above 50 of department:acme/research: a child cannot have more than its parent"),
    ("budget-above-grandparent", "{month_usd: 20}", "{day_usd: 81}",
     "organisations[acme].departments[research].projects[chatbot].budget.day_usd",
     "81 is above 80.5 of organisation:acme"),
    ("user-above-organisation", "{day_usd: 5}", "{day_usd: 90}",
     "organisations[acme].users[ana@acme.test].budget.day_usd", "90 is above 80.5"),
    ("limit-above-parent", "limits: {allowed_models: [gpt-4.1]}",
     "limits: {requests_per_minute: 6001}",
     f"{_K1_LIMITS}.requests_per_minute", "6001 is above 6000 of organisation:acme"),
    ("spend-limit-above-parent", "limits: {allowed_models: [gpt-4.1]}",
     "limits: {hour_spend_usd: 100.000000001}",
     f"{_K1_LIMITS}.hour_spend_usd", "100.000000001 is above 100 of organisation:acme"),
    ("models-above-parent", "allowed_models: [gpt-4.1]}", "allowed_models: [gpt-4.1, o9]}",
     f"{_K1_LIMITS}.allowed_models", "o9 not allowed by organisation:acme"),
    ("redirect-without-model", "    fallback_model: gemini-2.5-flash\n", "",
     "organisations[acme].fallback_model", "is required with throttle_mode redirect"),
    ("fallback-not-allowed", "fallback_model: gemini-2.5-flash", "fallback_model: o9",
     "organisations[acme].fallback_model", "'o9' is not among the allowed_models"),
    ("unknown-zone", "Europe/Berlin", "Europe/Berlim", "time_zone", "is not a time zone"),
    ("zone-is-a-path", "Europe/Berlin", "../../etc/passwd", "time_zone", "is not a time zone"),
    ("zone-is-a-directory", "Europe/Berlin", "Europe", "time_zone", "is not a time zone"),
    ("thresholds-descend", "[10, 100]", "[100, 10]", "rules.thresholds_percent",
     "10 stands after 100: write them ascending"),
    ("thresholds-twice", "[10, 100]", "[10, 10]", "rules.thresholds_percent",
     "10 is there twice"),
    ("threshold-zero", "[10, 100]", "[0, 100]", "rules.thresholds_percent[0]",
     "must be at least 1; got '0'"),
    ("threshold-absurd", "[10, 100]", "[10, 5000]", "rules.thresholds_percent[1]",
     "must be at most 1000; got '5000'"),
    ("breaker-order", "throttle_at_percent: 60", "throttle_at_percent: 90",
     "rules.breaker.half_open_at_percent", "90 must be above throttle_at_percent, which is 90"),
    ("breaker-open-order", "throttle_at_percent: 60", "open_at_percent: 80",
     "rules.breaker.open_at_percent", "80 must be above half_open_at_percent, which is 90"),
    ("breaker-admits-more", "throttle_at_percent: 60", "half_open_to_percent: 81",
     "rules.breaker.half_open_to_percent", "81 must not be above throttle_to_percent"),
    ("breaker-status", "dwell_seconds: 0", "http_status: 200",
     "rules.breaker.http_status", "must be at least 400; got '200'"),
    ("channel-http", "https://alerts", "http://alerts", "notify.channels[ops].url",
     "must begin with https://"),
    ("channel-other-scheme", "https://alerts", "file://alerts", "notify.channels[ops].url",
     "must begin with https://"),
    ("channel-no-host", "https://alerts.example.com/x", "https:///x", "notify.channels[ops].url",
     "names no host"),
    ("channel-bad-port", "example.com/x", "example.com:99999/x", "notify.channels[ops].url",
     "is not a URL"),
    ("channel-credentials", "https://alerts", "https://me:pw@alerts", "notify.channels[ops].url",
     "carries a user name or password"),
    ("channel-severity", "min_severity: warning", "min_severity: loud",
     "notify.channels[ops].min_severity", "'info', 'warning', 'error' or 'critical'; got 'loud'"),
    ("channel-type", "type: webhook", "type: pigeon", "notify.channels[ops].type",
     f"must be {_CHANNEL_TYPES}; got 'pigeon'"),
    ("channel-secret", "METERLINE_OPS_SECRET", "whsec_c2VjcmV0", "notify.channels[ops].secret_env",
     "must be the name of an environment variable"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "path", "reason"),
    [case[1:] for case in _REFUSALS],
    ids=[case[0] for case in _REFUSALS],
)
def test_a_wrong_file_is_refused_with_path_line_and_reason(
    old: str, new: str, path: str, reason: str
) -> None:
    """Each mistake gives exactly one fault: where it stands, and what is wrong with it."""
    fault = only_fault(changed(old, new))
    assert fault.path == path
    assert reason in fault.reason
    assert fault.line is not None


def test_a_fault_names_the_line_of_the_field() -> None:
    """The line is that of the field itself, also deep in the file."""
    text = changed("{month_usd: 20}", "{month_usd: 51}")
    assert only_fault(text).line == line_of(text, "{month_usd: 51}")


def test_a_duplicate_channel_is_refused() -> None:
    """Two channels of one id cannot be distinguished."""
    again = "    - {id: ops, url: 'https://other.example.com'}\n"
    assert only_fault(FULL + again).reason == "channel 'ops' is there twice"


def test_duplicate_organisations_and_ids_of_other_kinds() -> None:
    """An organisation's name is there once; the same id may name a project and a department."""
    text = "version: 1\norganisations:\n  - {id: acme}\n  - {id: acme}\n"
    assert only_fault(text).reason == "organisation 'acme' is there twice"
    parse_policy(
        organisation("departments:\n  - {id: x, projects: [{id: x, keys: [{id: x}]}]}"), "p"
    )


def test_http_is_allowed_for_a_private_receiver() -> None:
    """With allow_private_address a plain http URL is accepted, and nothing else than that."""
    text = changed("https://alerts.example.com/x", "http://127.0.0.1:9000/x")
    parse_policy(text + "      allow_private_address: true\n", "p")
    assert "https" in only_fault(text).reason


def test_the_sum_of_children_may_be_above_the_parent() -> None:
    """Budgets are ceilings, not shares: two children of 40 under a parent of 50 are fine."""
    parse_policy(
        organisation(
            "budget: {month_usd: 50}\n"
            "departments:\n"
            "  - {id: a, budget: {month_usd: 40}}\n"
            "  - {id: b, budget: {month_usd: 50}}"
        ),
        "p",
    )


def test_all_faults_come_at_once_in_the_files_order() -> None:
    """Typing mistakes do not hide mistakes of sense, before or after them."""
    text = (
        FULL.replace("time_zone: Europe/Berlin", "time_zone: Mars")
        .replace("burst_requests: 200", "burst_requests: many")
        .replace("{id: k-0, disabled: true}", "{disabled: true}\n          - {id: k-0}")
        .replace("id: k-1,", "id: k-0,")
        .replace("{month_usd: 20}", "{month_usd: 70}")
        .replace("dwell_seconds: 0", "dwell: 0, open_at_percent: 50")
        .replace("[10, 100]", "[10, 5]")
    )
    found = faults(text)
    assert [fault.path.rpartition("].")[2] for fault in found] == [
        "time_zone",
        "limits.burst_requests",
        "id",
        "budget.month_usd",
        "id",
        "rules.thresholds_percent",
        "rules.breaker.dwell",
        "rules.breaker.open_at_percent",
    ]
    lines = [fault.line for fault in found]
    assert lines == sorted(line for line in lines if line is not None)
    duplicate = found[4]
    assert duplicate.path.endswith("projects[chatbot].keys[k-0].id")


def test_a_wrong_value_is_not_blamed_for_what_it_would_have_meant() -> None:
    """A misspelt fallback model is one fault, not also a missing one."""
    fault = only_fault(changed("fallback_model: gemini-2.5-flash", "fallback_model: [a]"))
    assert fault.reason == "must be text"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: [1", "is not YAML"),
        ("version: 1\n\tx: 1", "is not YAML"),
        ("version: 1\n---\nversion: 1", "is not YAML"),
        ("version: *nobody", "is not YAML"),
        ("version: 1\x00", "is not YAML"),
        ("just text", "must be a mapping"),
        ("- version: 1", "must be a mapping"),
        ("", "is required"),
        ("# only a comment", "is required"),
        ("version: 1\n? [a]\n: b", "has a field name that is not text"),
        ("version: 1\nnotify: " + "{channels: " * (DEPTH_MAX + 2) + "}" * (DEPTH_MAX + 2), "deeper"),
        ("#" * (FILE_CHARACTERS_MAX + 1), "characters, at most"),
    ],
    ids=[
        "bracket", "tab", "two-documents", "no-anchor", "nul", "text", "list", "empty", "comment",
        "list-as-name", "deep", "huge",
    ],
)  # fmt: skip
def test_what_is_no_policy_document_is_refused_without_a_traceback(text: str, reason: str) -> None:
    """Broken YAML and other documents give a fault that says so."""
    assert any(reason in fault.reason for fault in faults(text))


def test_aliases_may_repeat_but_not_explode() -> None:
    """An anchor saves typing; a chain of them that stands for billions of values is refused."""
    parse_policy(
        organisation(
            "departments:\n"
            "  - {id: a, budget: &common {month_usd: 5}}\n"
            "  - {id: b, budget: *common}"
        ),
        "p",
    )
    bomb = ["version: 1", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert any("repeats itself" in fault.reason for fault in faults("\n".join(bomb)))
    assert any("deeper" in fault.reason for fault in faults("version: 1\na: &a [*a]"))


def test_secrets_written_by_mistake_are_not_shown() -> None:
    """Neither a secret in place of its variable's name nor a URL with a token is quoted."""
    text = changed("METERLINE_OPS_SECRET", "whsec_c2VjcmV0").replace(
        "https://alerts.example.com/x", "http://alerts.example.com/token-12345"
    )
    with pytest.raises(PolicyFileError) as caught:
        parse_policy(text, "policy.yaml")
    assert "c2VjcmV0" not in str(caught.value)
    assert "12345" not in str(caught.value)


def test_the_error_has_a_line_per_fault_with_the_files_name() -> None:
    """The message can be printed as it is: file, line, path, reason."""
    text = changed("fail_open: no", "fail_opne: no")
    with pytest.raises(PolicyFileError) as caught:
        parse_policy(text, "policy.yaml")
    line = line_of(text, "fail_opne")
    assert str(caught.value) == (
        f"policy.yaml: line {line}: organisations[acme].fail_opne: is not a known field; "
        f"did you mean 'fail_open'?"
    )


@pytest.mark.parametrize("written", ["no", "No", "off", "false", "FALSE"])
def test_yamls_words_for_no_are_understood(written: str) -> None:
    """A switch may be written as YAML allows."""
    document = parse_policy(changed("fail_open: no", f"fail_open: {written}"), "p")
    assert document.organisations[0].fail_open is False


@pytest.mark.parametrize("written", ["no", "1.10", "007", "2026-01-01", "null_x", "~x"])
def test_ids_stay_as_they_are_written(written: str) -> None:
    """An id that YAML would take for a boolean, number or date keeps its letters."""
    document = parse_policy(
        f"version: 1\norganisations:\n  - id: acme\n    departments: [{{id: {written}}}]", "p"
    )
    assert document.organisations[0].departments[0].id == written
