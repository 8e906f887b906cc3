"""Administrative actions as OCSF events, checked against the published schema."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from meterline.reports.audit.core.chain import AuditAction, extend
from meterline.reports.audit.core.ocsf import OCSF_VERSION, ocsf_event


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Of class 3004 as the OCSF project publishes it; unknown attributes are refused."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OCSF_VERSION))
    assert schema.lookup_class_name_from_uid(class_uid=3004) == "entity_management"
    return Draft202012Validator(schema.get_class_schema("entity_management"))


def action(**fields: Any) -> AuditAction:
    named: dict[str, Any] = {
        "version": 17,
        "id": "a-1",
        "at_ms": 1_795_284_491_607,
        "actor": "ana",
        "action": "policy.changed",
        "object_id": "department:acme/research",
        "reason": "more budget",
        "before": '{"budget": 1}',
        "after": '{"budget": 2}',
    }
    return AuditAction(**{**named, **fields})


ACTIONS = (
    action(),
    action(action="policy.created", object_id="organisation:acme", before=""),
    action(action="policy.deleted", object_id="user:acme/ana@acme.test", after=""),
    action(action="policy.changed", object_id="rules"),
    action(action="policy.created", object_id="silence:4f2a", before="", reason=""),
    action(action="throttle.set", object_id="throttle:key:acme/k-17", before=""),
    action(action="budget.overridden", object_id="override:project:acme/chat"),
    action(action="period.closed", object_id="period:2026-10", before="", after='{"revision":1}'),
    action(action="usage.rerated", object_id="usage:2026-10", before=""),
    action(action="personal.erased", object_id="organisation:acme", before=""),
    action(action="delivery.replayed", object_id="webhook", before="", after="not JSON"),
)


@pytest.mark.parametrize("each", ACTIONS, ids=lambda each: each.action + " " + each.object_id)
@pytest.mark.parametrize("sealed", [False, True])
def test_every_action_is_a_valid_event(
    validator: Draft202012Validator, each: AuditAction, *, sealed: bool
) -> None:
    """The schema of its version accepts it: required attributes, enumerations, constraints."""
    link = next(extend(None, [each])) if sealed else None
    event = json.loads(json.dumps(ocsf_event(each, link, "0.1.0")))
    assert [error.message for error in validator.iter_errors(event)] == []
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["metadata"]["version"] == OCSF_VERSION
    assert event["metadata"]["uid"] == each.id


def test_the_schema_refuses_what_is_no_event(validator: Draft202012Validator) -> None:
    """The check bites: a missing or unknown attribute, or a strange number, is an error."""
    event = ocsf_event(action(), None, "0.1.0")
    for broken in (
        {name: value for name, value in event.items() if name != "entity"},
        {**event, "activity_id": 77},
        {**event, "colour": "red"},
    ):
        assert not validator.is_valid(broken)


def test_before_after_and_chain_are_kept() -> None:
    """Nothing of the action is lost, and a sealed one can be traced in the chain."""
    link = next(extend(None, [action()]))
    event = ocsf_event(action(), link, "0.1.0")
    assert event["activity_id"] == 3
    assert event["entity"]["data"] == {"budget": 1}
    assert event["entity_result"]["data"] == {"budget": 2}
    assert event["actor"]["user"]["name"] == "ana"
    assert (event["comment"], event["time"]) == ("more budget", 1_795_284_491_607)
    assert event["metadata"]["sequence"] == 1
    assert event["unmapped"]["chain_hash"] == link.hash


def test_an_action_without_a_number_of_its_own_is_named() -> None:
    """OCSF's Other carries the action's own name."""
    event = ocsf_event(action(action="period.reopened", object_id="period:2026-10"), None, "0.1.0")
    assert (event["activity_id"], event["activity_name"]) == (99, "period.reopened")
