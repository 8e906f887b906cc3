"""The published wire contract."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import jsonschema
import msgspec
import pytest

from meterline.operations.asyncapi import asyncapi_document
from meterline.schemas.codec import decode_usage
from meterline.schemas.usage import UsageBatch, UsageEvent

PUBLISHED = Path(__file__).parents[2] / "docs" / "asyncapi.json"
EVENT = UsageEvent(id="r-1:1", time_ms=1_795_000_000_000, organisation="o", key="k", model="m")


def test_the_published_contract_is_the_one_that_is_decoded() -> None:
    """docs/asyncapi.json is what `meterline topics describe` prints."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert published == asyncapi_document(version("meterline"))


@pytest.mark.parametrize(
    ("name", "body", "fits"),
    [
        ("UsageEvent", msgspec.to_builtins(EVENT), True),
        ("UsageBatch", msgspec.to_builtins(UsageBatch(lane="l", seq=1, events=(EVENT,))), True),
        ("UsageEvent", {"id": "r-1"}, False),
        ("UsageBatch", {"lane": "l", "seq": 0, "events": []}, False),
    ],
)
def test_the_contract_judges_a_message_as_the_decoder_does(
    name: str, body: dict[str, object], fits: bool
) -> None:
    """A relay that follows the published schema is understood, and one that does not is refused."""
    document = asyncapi_document("0")
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    # Through JSON, as on the wire: arrays are lists there.
    wire = json.loads(msgspec.json.encode(body))
    assert jsonschema.Draft202012Validator(schema).is_valid(wire) is fits
    decoded = decode_usage(msgspec.json.encode(body), EVENT.time_ms)
    assert (not decoded.rejects) is fits
