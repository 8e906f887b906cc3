"""Pure: administrative actions as events of the Open Cybersecurity Schema Framework (OCSF).

Every action is an Entity Management event (class 3004 of category 3, Identity & Access
Management): a user creates, changes or deletes a managed object. API Activity (6003) would need
the caller's network address, and Account Change (3001) an account that signs in; the log has
neither. Fields: https://schema.ocsf.io/1.8.0/classes/entity_management.
"""

from __future__ import annotations

import json
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

from meterline.reports.audit.core.chain import AuditAction, ChainLink
from meterline.schemas.scopes import ScopeError, ScopeType, parse_scope

OCSF_VERSION = "1.8.0"
CATEGORY_UID, CLASS_UID = 3, 3004
_INFORMATIONAL, _SUCCESS = 1, 1


class Activity(IntEnum):
    """Of the class; the numbers are OCSF's."""

    CREATE = 1
    UPDATE = 3
    DELETE = 4
    OTHER = 99


class EntityType(IntEnum):
    """Of a managed entity; the numbers are OCSF's."""

    USER = 2
    ORGANIZATION = 4
    POLICY = 5
    OTHER = 99


_ACTIVITIES: Final = MappingProxyType(
    {
        "policy.created": Activity.CREATE,
        "policy.changed": Activity.UPDATE,
        "policy.deleted": Activity.DELETE,
        "throttle.set": Activity.UPDATE,
        "throttle.released": Activity.UPDATE,
        "budget.overridden": Activity.UPDATE,
        "budget.reverted": Activity.UPDATE,
        "usage.rerated": Activity.UPDATE,
        "spend.repaired": Activity.UPDATE,
        "retention.changed": Activity.UPDATE,
        "personal.erased": Activity.DELETE,
    }
)
"""What is not here (a month closed, a delivery repeated) is Other, named by `activity_name`."""


def ocsf_event(action: AuditAction, link: ChainLink | None, product_version: str) -> dict[str, Any]:
    """One action as one event.

    Args:
        action: of the audit log.
        link: its place in the hash chain, if it is sealed; goes to `unmapped`.
        product_version: of Meterline.
    """
    activity = _ACTIVITIES.get(action.action, Activity.OTHER)
    before, after = _object(action.before), _object(action.after)
    entity = _entity(action.object_id)
    event: dict[str, Any] = {
        "activity_id": activity.value,
        "activity_name": action.action if activity is Activity.OTHER else activity.name.title(),
        "actor": {"user": {"name": action.actor}},
        "category_name": "Identity & Access Management",
        "category_uid": CATEGORY_UID,
        "class_name": "Entity Management",
        "class_uid": CLASS_UID,
        "comment": action.reason,
        "entity": {**entity, **({"data": before} if before is not None else {})},
        "message": f"{action.actor}: {action.action} {action.object_id}",
        "metadata": {
            "event_code": action.action,
            "log_name": "audit.log",
            "product": {
                "name": "Meterline",
                "vendor_name": "Meterline",
                "version": product_version,
            },
            "uid": action.id,
            "version": OCSF_VERSION,
        },
        "severity": "Informational",
        "severity_id": _INFORMATIONAL,
        # The log holds what was done, never what was tried.
        "status": "Success",
        "status_id": _SUCCESS,
        "time": action.at_ms,
        "type_name": f"Entity Management: {activity.name.title()}",
        "type_uid": CLASS_UID * 100 + activity.value,
        "unmapped": {"log_position": action.version},
    }
    if after is not None:
        event["entity_result"] = {**entity, "data": after}
    if link is not None:
        event["metadata"]["sequence"] = link.seq
        event["unmapped"] |= {"chain_row_hash": link.row_hash, "chain_hash": link.hash}
    return event


def _entity(object_id: str) -> dict[str, Any]:
    kind, _, name = object_id.partition(":")
    try:
        scope = parse_scope(object_id)
    except ScopeError:
        if name:  # a month, a silence, a manual throttle
            return {"uid": object_id, "name": name, "type_id": EntityType.OTHER.value, "type": kind}
        # Rules, receivers, finance: parts of the policy file.
        policy = {"uid": object_id, "name": object_id}
        return {**policy, "type_id": EntityType.POLICY.value, "type": "Policy", "policy": policy}
    match scope.type:
        case ScopeType.ORGANISATION:
            entity = EntityType.ORGANIZATION
            filled = {"org": {"uid": object_id, "name": scope.organisation}}
        case ScopeType.USER:
            entity = EntityType.USER
            filled = {"user": {"uid": object_id, "name": scope.identifier}}
        case _:
            entity, filled = EntityType.OTHER, {}
    return {
        "uid": object_id,
        "name": scope.identifier or scope.organisation,
        "type_id": entity.value,
        "type": kind if entity is EntityType.OTHER else entity.name.title(),
        **filled,
    }


def _object(text: str) -> Any:
    """JSON of the object; a text that is none stays a text."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
