"""Slack, Teams, PagerDuty and Alertmanager as far as their published rules go: they refuse what those do.

Each is a path of a `Receiver`; the answer after the script is the real one's word for success.
"""

from __future__ import annotations

import json
from typing import Any

from tests.webhook_receiver import Answer, Received, Receiver

PAGERDUTY_KEY = "0123456789abcdef0123456789abcdef"
BEARER = "alertmanager-token"
_PAGERDUTY_BYTES_MAX = 512 * 1024
# 28 KB are documented; connectors have answered 413 from here on.
_TEAMS_BYTES_MAX = 21_000


def slack(receiver: Receiver, path: str, *answers: Answer) -> str:
    """The URL of an incoming webhook."""
    receiver.judges[path] = _slack
    return receiver.url(path, *answers)


def teams(receiver: Receiver, path: str, *answers: Answer) -> str:
    """The URL of a workflow that posts to a channel; a connector's, where answers are scripted."""
    usual = None if answers else Answer(202)
    receiver.judges[path] = lambda request: _teams_refusal(request) or usual
    return receiver.url(path, *answers)


def pagerduty(receiver: Receiver, path: str, *answers: Answer) -> str:
    """The URL of an Events API v2 endpoint."""
    receiver.judges[path] = _pagerduty
    return receiver.url(path, *answers)


def alertmanager(receiver: Receiver, base: str, *answers: Answer) -> str:
    """The base URL of an Alertmanager that wants a token."""
    path = f"{base}/api/v2/alerts"
    receiver.judges[path] = _alertmanager
    receiver.url(path, *answers)
    return receiver.base_url + base


def documents(receiver: Receiver, path: str) -> list[Any]:
    """The JSON bodies that came."""
    return [json.loads(request.body) for request in receiver.of(path)]


def _slack(request: Received) -> Answer:
    document = json.loads(request.body)
    blocks = document.get("blocks", [])
    texts = [text for block in blocks for text in _texts(block)]
    if not document.get("text") or len(blocks) > 50:
        return Answer(400, body=b"invalid_payload")
    for block in blocks:
        limit = 150 if block["type"] == "header" else 3_000
        if block["type"] not in {"header", "section", "context"}:
            return Answer(400, body=b"invalid_blocks")
        if any(not 0 < len(text) <= limit for text in _texts(block)):
            return Answer(400, body=b"invalid_blocks")
    if sum(map(len, texts)) > 13_000:
        return Answer(400, body=b"msg_blocks_too_long")
    return Answer(200, body=b"ok")


def _texts(block: dict[str, Any]) -> list[str]:
    if block["type"] == "context":
        return [element["text"] for element in block["elements"]]
    return [block["text"]["text"]]


def _teams_refusal(request: Received) -> Answer | None:
    document = json.loads(request.body)
    if len(request.body) > _TEAMS_BYTES_MAX:
        return Answer(413)
    attachments = document.get("attachments", [])
    if document.get("type") != "message" or len(attachments) != 1:
        return Answer(400, body=b'{"error":{"code":"TriggerInputSchemaMismatch"}}')
    card = attachments[0]["content"]
    faults = [
        attachments[0]["contentType"] != "application/vnd.microsoft.card.adaptive",
        card["type"] != "AdaptiveCard",
        tuple(map(int, card["version"].split("."))) > (1, 4),
        not card["body"],
        any(not text for block in card["body"] for text in card_texts(block)),
    ]
    return Answer(400) if any(faults) else None


def card_texts(block: dict[str, Any]) -> list[str]:
    """The texts of an element of a card."""
    if block["type"] == "RichTextBlock":
        return [run["text"] for run in block["inlines"] if run["type"] == "TextRun"]
    assert block["type"] == "TextBlock"
    return [block["text"]]


def _pagerduty(request: Received) -> Answer:
    document = json.loads(request.body)
    payload = document.get("payload", {})
    is_trigger = document.get("event_action") == "trigger"
    faults = [
        len(request.body) > _PAGERDUTY_BYTES_MAX,
        document.get("routing_key") != PAGERDUTY_KEY,
        document.get("event_action") not in {"trigger", "acknowledge", "resolve"},
        not 0 < len(document.get("dedup_key", "")) <= 255,
        is_trigger and not 0 < len(payload.get("summary", "")) <= 1024,
        is_trigger and not payload.get("source"),
        is_trigger and payload.get("severity") not in {"critical", "error", "warning", "info"},
    ]
    if any(faults):
        return Answer(400, body=b'{"status":"invalid event"}')
    return Answer(202, body=b'{"status":"success"}')


def _alertmanager(request: Received) -> Answer:
    if request.headers.get("authorization") != f"Bearer {BEARER}":
        return Answer(401)
    for alert in json.loads(request.body):
        if not alert["labels"] or alert["endsAt"] <= alert["startsAt"]:
            return Answer(400)
    return Answer(200)
