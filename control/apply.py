"""What applying a policy file would change."""

from __future__ import annotations

from collections.abc import Mapping

from meterline.backends.kafka.config import KafkaConfig
from meterline.control.policy.document import PolicyDocument
from meterline.control.policy.plan import PolicyChange, plan
from meterline.control.store import read_policies
from meterline.schemas.errors import UserError
from meterline.schemas.policy import PolicyObject


def check_time_zone(document: PolicyDocument, source: str, time_zone: str) -> None:
    """Refuse a policy of another time zone than the pipeline counts in.

    Args:
        document: the policy file's content.
        source: the file's name, for the message.
        time_zone: the pipeline's billing time zone.

    Raises:
        UserError: spend would be counted in other windows than the policy's.
    """
    if document.time_zone != time_zone:
        message = (
            f"{source}: time_zone is {document.time_zone}, but this pipeline counts in "
            f"{time_zone} (METERLINE_TIME_ZONE): use the same for both"
        )
        raise UserError(message)


def planned(config: KafkaConfig, wanted: Mapping[str, PolicyObject]) -> tuple[PolicyChange, ...]:
    """The changes from what is published now to the objects of a compiled policy.

    Raises:
        KafkaClientError: the published policy cannot be read.
    """
    return plan(read_policies(config), wanted)
