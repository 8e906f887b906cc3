"""The wire contract for relays in any language, as an AsyncAPI 3.0 document.

Made from the types that encode and decode, so that it cannot say anything else than they do.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec
from pydantic import BaseModel

from meterline.schemas.codec import CLOUD_EVENT_TYPE
from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.reasons import RejectReason
from meterline.schemas.throttle import ThrottleAck, ThrottleCommand
from meterline.schemas.topics import Topic, topic_spec
from meterline.schemas.usage import EVENTS_PER_BATCH_MAX, MESSAGE_BYTES_MAX, UsageBatch, UsageEvent

ASYNCAPI_VERSION = "3.0.0"
_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"

# topic, what a relay does with it, the messages it carries, what to know
_CHANNELS: tuple[tuple[Topic, str, tuple[str, ...], str], ...] = (
    (
        Topic.USAGE_EVENTS,
        "send",
        ("UsageBatch", "UsageEvent", "CloudEvent"),
        (
            f"One record is a batch of 1 to {EVENTS_PER_BATCH_MAX} events of one lane, or one event. At "
            f"most {MESSAGE_BYTES_MAX} bytes. Key: the lane for batches, the API key for single events, "
            "so that all of them stay in one partition. Producers use acks=all."
        ),
    ),
    (
        Topic.THROTTLE_COMMANDS,
        "receive",
        ("ThrottleCommand",),
        (
            "Read to the end before serving, then follow. A command is the whole desired state of its "
            "scope: apply it only if its (epoch, seq) is greater than the last applied one, and forget "
            "it when its lease ends, as on_expiry says."
        ),
    ),
    (
        Topic.THROTTLE_ACKS,
        "send",
        ("ThrottleAck",),
        "One for every command, when it is applied or passed over.",
    ),
    (
        Topic.DEAD_LETTERS,
        "receive",
        ("DeadLetter",),
        "What was refused, with the original bytes and a reason: "
        + ", ".join(sorted(reason.value for reason in RejectReason))
        + ".",
    ),
)
_STRUCTS: tuple[type, ...] = (UsageBatch, UsageEvent, DeadLetter)
_MODELS: tuple[type[BaseModel], ...] = (ThrottleCommand, ThrottleAck)


def asyncapi_document(version: str) -> dict[str, Any]:
    """The document.

    Args:
        version: of the product.

    Returns:
        A JSON-ready AsyncAPI 3.0 object with its channels, operations, messages and schemas.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for topic, action, messages, text in _CHANNELS:
        spec = topic_spec(topic)
        channels[topic.name] = {
            "address": topic.value,
            "description": text,
            "messages": {name: {"$ref": _MESSAGES + name} for name in messages},
            "bindings": {"kafka": {"topic": topic.value, "bindingVersion": "0.5.0"}},
            "x-kafka-key": spec.key,
        }
        operations[f"{action}-{topic.value}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic.name}"},
        }
    named = [name for _, _, names, _ in _CHANNELS for name in names]
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Meterline for relays",
            "version": version,
            "description": "What a relay sends and obeys. Times are UTC milliseconds, money is an "
            "integer of nano-dollars, cached tokens are part of input_tokens and reasoning tokens "
            "part of output_tokens.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                name: {"name": name, "payload": {"$ref": _SCHEMAS + name}} for name in named
            },
            "schemas": _schemas(),
        },
    }


def _schemas() -> dict[str, Any]:
    _, found = msgspec.json.schema_components(_STRUCTS, ref_template=_SCHEMAS + "{name}")
    # Docstrings, whose indentation msgspec kept before 0.23: the document is the same with both.
    schemas: dict[str, Any] = {
        name: {**each, "description": cleandoc(each["description"])}
        if "description" in each
        else each
        for name, each in found.items()
    }
    for model in _MODELS:
        schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas["CloudEvent"] = {
        "title": "CloudEvent",
        "description": "CloudEvents 1.0 in structured JSON mode; id and time fill the event's.",
        "type": "object",
        "required": ["specversion", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"const": CLOUD_EVENT_TYPE},
            "id": {"type": "string"},
            "time": {"type": "string", "format": "date-time"},
            "data": {"$ref": _SCHEMAS + "UsageEvent"},
        },
    }
    return dict(sorted(schemas.items()))
