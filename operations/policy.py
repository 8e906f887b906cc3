"""Policy files as operators write them: the compiler with the kinds that this version knows."""

from __future__ import annotations

from pathlib import Path

from meterline.alerting.notify.channels.registry import CHANNEL_KINDS
from meterline.alerting.rules.registry import RULE_KINDS
from meterline.control import apply
from meterline.control.policy import file, plan
from meterline.control.policy.document import PolicyDocument
from meterline.control.policy.plan import PolicyChange
from meterline.operations.pipeline import Pipeline
from meterline.schemas.errors import UserError
from meterline.schemas.policy import PolicyObject
from meterline.schemas.policy_kinds import PolicyKinds

KINDS = PolicyKinds(channels=CHANNEL_KINDS, rules=RULE_KINDS)


def parse_policy(text: str, source: str) -> PolicyDocument:
    """Read and check a policy file's text.

    Args:
        text: the file's content.
        source: its name, for messages.

    Raises:
        PolicyFileError: with every fault that was found.
    """
    return file.parse_policy(text, source, KINDS)


def read_policy_file(path: Path) -> PolicyDocument:
    """Read and check a policy file.

    Raises:
        PolicyFileError: with every fault that was found.
        UserError: it is not text.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text"
        raise UserError(message) from error
    return parse_policy(text, str(path))


def compile_policy(document: PolicyDocument) -> dict[str, PolicyObject]:
    """The objects of a checked document by their id, each with version 1."""
    return plan.compile_policy(document, KINDS)


def planned_by_file(pipeline: Pipeline, path: Path) -> tuple[PolicyChange, ...]:
    """The changes that a policy file would make to what is published now.

    Raises:
        PolicyFileError: the file has faults.
        UserError: the file is of another time zone than the pipeline, or not text.
        KafkaClientError: the published policy cannot be read.
    """
    document = read_policy_file(path)
    apply.check_time_zone(document, str(path), pipeline.time_zone)
    return apply.planned(pipeline.kafka("policy"), compile_policy(document))
