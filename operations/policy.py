"""The policy compiler with the channels and rules that this version knows."""

from __future__ import annotations

from meterline.alerting.notify.channels.registry import CHANNEL_KINDS
from meterline.alerting.rules.registry import RULE_KINDS
from meterline.control.policy import file, plan
from meterline.control.policy.document import PolicyDocument
from meterline.schemas.policy import PolicyObject
from meterline.schemas.policy_kinds import PolicyKinds

KINDS = PolicyKinds(channels=CHANNEL_KINDS, rules=RULE_KINDS)


def parse_policy(text: str, source: str) -> PolicyDocument:
    """Read and check a policy file.

    Args:
        text: the file's content.
        source: its name, for messages.

    Raises:
        PolicyFileError: with every fault that was found.
    """
    return file.parse_policy(text, source, KINDS)


def compile_policy(document: PolicyDocument) -> dict[str, PolicyObject]:
    """The objects of a checked document by their id, each with version 1."""
    return plan.compile_policy(document, KINDS)
