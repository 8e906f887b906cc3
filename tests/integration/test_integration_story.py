"""A runaway loop, from its first event to page, throttle, resolve and post-mortem."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from meterline.app.clock import now_ms
from meterline.relay.client import RelayClient
from meterline.relay.gate import Admission, GateRequest
from meterline.schemas.periods import MINUTE_MS, rfc3339
from meterline.schemas.usage import UsageEvent
from tests.channel_receivers import PAGERDUTY_KEY, documents, pagerduty, slack
from tests.pipeline import Pipeline, eventually, running_pipeline, running_relay
from tests.webhook_receiver import Receiver, running_receiver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
RESEARCH = "department:acme/research"
LOOP = "key:acme/k-loop"
LOOPING = GateRequest("acme", "k-loop", "gpt-4.1", department="research")
HONEST = GateRequest("acme", "k-honest", "gpt-4.1", department="research")
BUDGET_USD = 20
# gpt-4.1 at 8 dollars per million: 40 cents a request.
TOKENS_PER_REQUEST = 50_000
PACE_SECONDS = 0.02
REQUESTS_MAX = 3_000
"""A loop that is not stopped is a failure, not a full disk."""


def policy(budget_usd: int, pages_url: str = "") -> dict[str, Any]:
    """Research with its budget; with a URL of PagerDuty also its receivers."""
    document: dict[str, Any] = {
        "version": 1,
        "organisations": [
            {
                "id": "acme",
                "departments": [
                    {
                        "id": "research",
                        "name": "Research",
                        "budget": {"month_usd": budget_usd},
                        "keys": [{"id": "k-loop"}],
                    }
                ],
            }
        ],
    }
    if pages_url:
        pager = {"type": "pagerduty", "url": pages_url, "routing_key_env": "METERLINE_SECRET_PAGER"}
        chat = {"type": "slack", "url_env": "METERLINE_SECRET_CHAT"}
        document["notify"] = {
            "channels": [
                {"id": "pager", **pager, "allow_private_address": True},
                {"id": "chat", **chat, "allow_private_address": True},
            ],
            "routes": [
                {
                    "id": "pages",
                    "match": ["severity=~error|critical"],
                    "channels": ["pager"],
                    "continue": True,
                },
                {"id": "all", "channels": ["chat"]},
            ],
        }
    return document


def written(folder: Path, name: str, document: dict[str, Any]) -> str:
    """A policy file's path."""
    path = folder / name
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """PagerDuty and Slack."""
    with running_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def pipeline(
    receiver: Receiver, tmp_path_factory: pytest.TempPathFactory, kafka_kind: str
) -> Iterator[Pipeline]:
    """A pipeline on the sample policy, which knows neither of them yet."""
    folder = tmp_path_factory.mktemp("story") / "data"
    secrets = {
        "METERLINE_SECRET_CHAT": slack(receiver, "/chat"),
        "METERLINE_SECRET_PAGER": PAGERDUTY_KEY,
    }
    with running_pipeline(folder, "--kafka", kafka_kind, environment=secrets) as running:
        yield running


@pytest.fixture(scope="module")
def relay(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayClient]:
    """A relay in this process: another one than the pipeline's processes."""
    with running_relay(pipeline, "relay-1", tmp_path_factory.mktemp("spool")) as running:
        yield running


def spend(relay: RelayClient, request: GateRequest, number: int, at_ms: int) -> None:
    """One request was answered."""
    relay.record(
        UsageEvent(
            id=f"{request.key}-{number}:1",
            time_ms=at_ms,
            organisation=request.organisation,
            department=request.department,
            key=request.key,
            provider="openai",
            model=request.model,
            output_tokens=TOKENS_PER_REQUEST,
        )
    )


def is_admitted(relay: RelayClient, request: GateRequest) -> bool:
    """What the gate says now."""
    return relay.decide(request).admission is Admission.ADMIT


def pages(receiver: Receiver, action: str, words: str = "") -> list[dict[str, Any]]:
    """Events at PagerDuty."""
    return [
        event
        for event in documents(receiver, "/pages")
        if event["event_action"] == action and words in event.get("payload", {}).get("summary", "")
    ]


def said(receiver: Receiver, words: str) -> list[str]:
    """Messages in Slack."""
    return [text for one in documents(receiver, "/chat") if words in (text := json.dumps(one))]


def explained(pipeline: Pipeline, scope: str, *arguments: str) -> list[dict[str, Any]]:
    """The scope and those above it, as `explain` says."""
    found: list[dict[str, Any]] = pipeline.json("explain", scope, *arguments)["scopes"]
    return found


def held(pipeline: Pipeline, rule: str) -> dict[str, Any] | None:
    """The department in the explanation of its key, once a rule holds it."""
    found = {each["scope"]: each for each in explained(pipeline, LOOP)}[RESEARCH]
    return found if found["rule"] == rule else None


def actions(pipeline: Pipeline, object_id: str) -> list[dict[str, Any]]:
    """What the audit log has of one object."""
    lines = pipeline.cli("audit", "log").stdout.splitlines()
    return [entry for line in lines if (entry := json.loads(line))["object_id"] == object_id]


def run_away(relay: RelayClient) -> None:
    """The loop asks as fast as it can, and spends what the gate lets through, until it is over."""
    for number in range(REQUESTS_MAX):
        decision = relay.decide(LOOPING)
        if decision.http_status == 402:
            assert (decision.scope, decision.should_retry) == (RESEARCH, False)
            return
        if decision.admission is Admission.ADMIT:
            spend(relay, LOOPING, 100 + number, now_ms())
        time.sleep(PACE_SECONDS)
    pytest.fail("the loop was not stopped")


def test_a_runaway_loop_from_first_event_to_post_mortem(
    pipeline: Pipeline, relay: RelayClient, receiver: Receiver, tmp_path: Path
) -> None:
    """It is notified, paged, stopped, resolved, and every step can be read afterwards."""
    pages_url = pagerduty(receiver, "/pages")
    rules = written(tmp_path, "rules.yaml", policy(BUDGET_USD, pages_url))
    pipeline.cli("policy", "apply", rules, "--yes", "--reason", "a budget for research")

    # It began two minutes ago, reported late: 30 requests, 12 dollars, 60 %.
    began_ms = now_ms()
    for number in range(30):
        spend(relay, LOOPING, number, began_ms - 2 * MINUTE_MS)
    (first, *_) = eventually(lambda: documents(receiver, "/chat"), "the first word in Slack")
    assert "Research" in first["text"]
    assert receiver.of("/pages") == [], "half a budget pages no one"

    # It goes on until the relay refuses it; who is on call is paged, and Slack knows too.
    run_away(relay)
    page = eventually(lambda: pages(receiver, "trigger", "100 %"), "the page")[0]
    assert (page["payload"]["severity"], page["payload"]["source"]) == ("critical", RESEARCH)
    eventually(lambda: said(receiver, "threshold 100 %"), "the message in Slack")

    # On call asks why: the key is held by its department's budget.
    during = eventually(lambda: held(pipeline, "budget_exhausted"), "the command in the store")
    assert during["evidence"]["rule_id"] == "budget_month"
    assert f"meterline budget override {RESEARCH}" in during["lift"]
    during_ms = now_ms()

    # The loop's key is blocked by hand, and its department given room: all others go on.
    pipeline.cli(
        *("throttle", "set", LOOP, "--mode", "block", "--until", "2h"),
        *("--reason", "runaway loop", "--actor", "ann"),
    )
    pipeline.cli(
        *("budget", "override", RESEARCH, "--amount", "500", "--until", "1d"),
        *("--reason", "room until the loop is fixed", "--actor", "ann"),
    )
    eventually(lambda: is_admitted(relay, HONEST), "requests of others")
    refused = relay.decide(LOOPING)
    assert (refused.scope, refused.http_status, refused.rule) == (LOOP, 429, "manual")

    # The incident, one for all its thresholds, is over where it was notified.
    eventually(lambda: pages(receiver, "resolve"), "the page's end")
    assert {each["dedup_key"] for each in documents(receiver, "/pages")} == {page["dedup_key"]}
    eventually(lambda: said(receiver, "Resolved"), "the resolution in Slack")

    # The loop is fixed.
    blocked_ms = now_ms()
    pipeline.cli("throttle", "release", LOOP, "--reason", "fixed", "--actor", "ben")
    eventually(lambda: is_admitted(relay, LOOPING), "the key again")

    _post_mortem(pipeline, tmp_path, during_ms, blocked_ms)
    _back_test(pipeline, tmp_path, began_ms)


def _post_mortem(pipeline: Pipeline, tmp_path: Path, during_ms: int, blocked_ms: int) -> None:
    """What was, at each moment, what each actor did, and which receivers were notified."""
    eventually(lambda: len(actions(pipeline, f"throttle:{LOOP}")) == 2, "the release in the log")
    key, research = explained(pipeline, LOOP)[:2]
    assert (key["state"], key["orders"], research["state"]) == ("closed", [], "closed")
    (order,) = research["orders"]
    assert "overridden by ann" in order

    # As it was, orders too.
    key, research = explained(pipeline, LOOP, "--at", rfc3339(during_ms))[:2]
    assert (key["orders"], research["orders"]) == ([], [])
    assert (key["state"], research["state"]) == ("closed", "open")
    key, research = explained(pipeline, LOOP, "--at", rfc3339(blocked_ms))[:2]
    assert (key["state"], research["state"]) == ("open", "closed")
    (order,) = key["orders"]
    assert order.startswith("blocked by ann until")
    assert order.endswith("runaway loop")

    given, released = actions(pipeline, f"throttle:{LOOP}")
    assert (given["action"], given["actor"], given["reason"]) == (
        *("throttle.set", "ann", "runaway loop"),
    )
    assert (released["action"], released["actor"]) == ("throttle.released", "ben")
    (override,) = actions(pipeline, f"override:{RESEARCH}")
    assert (override["action"], override["actor"]) == ("budget.overridden", "ann")

    attempts = pipeline.json("deliveries", "list", "--since", "1h")["deliveries"]
    assert {row["outcome"] for row in attempts} == {"delivered"}
    assert {row["channel"] for row in attempts} == {"log", "chat", "pager"}
    assert all("threshold 100 %" not in row["error"] for row in attempts)


def _back_test(pipeline: Pipeline, tmp_path: Path, began_ms: int) -> None:
    """The rules that were would have said what they said; stricter ones would have saved money."""
    times = ("--from", rfc3339(began_ms - 5 * MINUTE_MS), "--to", rfc3339(now_ms() + MINUTE_MS))

    def tested(name: str, budget_usd: int) -> dict[str, Any]:
        rules = written(tmp_path, name, policy(budget_usd))
        found: dict[str, Any] = pipeline.json("alerts", "backtest", "--rules", rules, *times)
        return found

    same, stricter = tested("same.yaml", BUDGET_USD), tested("stricter.yaml", BUDGET_USD // 2)
    fired = [one["threshold"] for one in same["alerts"] if one["rule"] == "budget_month"]
    assert (fired[0], fired[-1]) == (50, 100)
    assert [one["state"] for one in same["commands"] if one["scope"] == RESEARCH][-1] == "open"
    (research,) = [one for one in stricter["scopes"] if one["scope"] == RESEARCH]
    # Ten dollars would have ended with the late 12: all that came after them is saved.
    late = 30 * TOKENS_PER_REQUEST * 8 // 1_000_000
    assert Decimal(research["spent_usd"]) - Decimal(research["refused_usd"]) == late
    assert Decimal(research["refused_usd"]) > 0
