"""From the file's `notify` part to the published object."""

from __future__ import annotations

from meterline.control.policy.notify_document import NotifyEntry
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.policy import NotifyPolicy
from meterline.schemas.policy_kinds import PolicyKinds
from meterline.schemas.policy_notify import Inhibition, Maintenance, Route


def compile_notify(entry: NotifyEntry, kinds: PolicyKinds) -> NotifyPolicy:
    """The object of a checked document, with version 1."""
    channels = [kinds.channels[channel.type].compile(channel) for channel in entry.channels]
    maintenance = tuple(
        Maintenance(
            **window.model_dump(exclude={"until"}),
            until_ms=parse_rfc3339(window.until) if window.until else 0,
        )
        for window in entry.maintenance
    )
    routes = tuple(Route.model_validate(route.model_dump()) for route in entry.routes)
    made = NotifyPolicy.model_validate(
        {"channels": channels, "routes": routes, "maintenance": maintenance}
    )
    if entry.inhibit is None:
        return made
    inhibit = tuple(Inhibition.model_validate(each.model_dump()) for each in entry.inhibit)
    return made.model_copy(update={"inhibit": inhibit})
