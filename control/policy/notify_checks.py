"""What must hold in the `notify` part of a policy document; every finding has its path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from meterline.control.policy.notify_document import MaintenanceEntry, NotifyEntry, RouteEntry
from meterline.control.policy.yaml_tree import Path
from meterline.schemas.matchers import LABELS, MatcherError, parse_matcher
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.policy_kinds import (
    TEMPLATE_FIELDS,
    ChannelEntry,
    ChannelKind,
    PolicyKinds,
)
from meterline.schemas.policy_notify import LOG_CHANNEL
from meterline.schemas.scopes import ScopeError, check_identifier
from meterline.schemas.templates import TemplateError, check_template

# POSIX: what a shell can set.
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
ENVIRONMENT_NAME_LENGTH_MAX = 128
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)


class NotifyFinding(NamedTuple):
    """One thing that does not make sense."""

    path: Path
    reason: str


def check_notify(notify: NotifyEntry, kinds: PolicyKinds) -> Iterator[NotifyFinding]:
    """Everything that does not make sense in a well-typed `notify` part."""
    yield from _check_unique("channels", [channel.id for channel in notify.channels])
    for position, channel in enumerate(notify.channels):
        kind = kinds.channels[channel.type]
        yield from _check_channel(channel, kind, ("notify", "channels", position))
    yield from _check_fallbacks(notify.channels)
    known = {LOG_CHANNEL, *(channel.id for channel in notify.channels)}
    yield from _check_unique("routes", [route.id for route in notify.routes])
    for position, route in enumerate(notify.routes):
        yield from _check_route(route, ("notify", "routes", position), known)
    yield from _check_unique("inhibit", [each.id for each in notify.inhibit or ()])
    for position, each in enumerate(notify.inhibit or ()):
        path: Path = ("notify", "inhibit", position)
        for field, matchers in (("source", each.source), ("target", each.target)):
            if not matchers:
                # Without a matcher it would mute everything below anything.
                yield NotifyFinding((*path, field), "needs at least one matcher")
            yield from _check_matchers(matchers, (*path, field))
    yield from _check_unique("maintenance", [each.id for each in notify.maintenance])
    for position, window in enumerate(notify.maintenance):
        yield from _check_maintenance(window, ("notify", "maintenance", position))


def _check_unique(field: str, names: Sequence[str]) -> Iterator[NotifyFinding]:
    seen: set[str] = set()
    noun = field.removesuffix("s") if field in {"channels", "routes"} else f"{field} entry"
    for position, name in enumerate(names):
        path: Path = ("notify", field, position, "id")
        if name in seen:
            yield NotifyFinding(path, f"{noun} {name!r} is there twice")
        seen.add(name)
        try:
            check_identifier(name, f"a {noun}'s id")
        except ScopeError as error:
            yield NotifyFinding(path, str(error))


def _check_channel(
    channel: ChannelEntry, kind: ChannelKind[Any, Any], path: Path
) -> Iterator[NotifyFinding]:
    if channel.id == LOG_CHANNEL:
        yield NotifyFinding((*path, "id"), "'log' is the worker's log, which is always there")
    for name in kind.environment_fields:
        value = getattr(channel, name)
        if value and not (
            len(value) <= ENVIRONMENT_NAME_LENGTH_MAX and _ENVIRONMENT_NAME.fullmatch(value)
        ):
            # Not quoted: the operator may have written the secret itself.
            yield NotifyFinding(
                (*path, name),
                "must be the name of an environment variable (A-Z, 0-9 and _), never the secret",
            )
    for name in TEMPLATE_FIELDS:
        template = getattr(channel, name, "")
        if template:
            try:
                check_template(template)
            except TemplateError as error:
                yield NotifyFinding((*path, name), str(error))
    for name, reason in kind.check(channel):
        yield NotifyFinding((*path, name), reason)


def _check_fallbacks(channels: Sequence[ChannelEntry]) -> Iterator[NotifyFinding]:
    following = {channel.id: channel.fallback for channel in channels if channel.fallback}
    known = {channel.id for channel in channels}
    for position, channel in enumerate(channels):
        path: Path = ("notify", "channels", position, "fallback")
        if channel.fallback and channel.fallback not in known:
            yield NotifyFinding(path, f"there is no channel {channel.fallback!r}")
            continue
        seen = {channel.id}
        after = following.get(channel.id)
        while after is not None and after not in seen:
            seen.add(after)
            after = following.get(after)
        if after == channel.id:
            yield NotifyFinding(path, f"leads back to {channel.id!r}")


def _check_route(route: RouteEntry, path: Path, known: set[str]) -> Iterator[NotifyFinding]:
    yield from _check_matchers(route.match, (*path, "match"))
    for name in route.channels:
        if name not in known:
            yield NotifyFinding((*path, "channels"), f"there is no channel {name!r}")
    for name in route.group_by:
        if name not in LABELS:
            yield NotifyFinding(
                (*path, "group_by"), f"{name!r} is not a label; known: {', '.join(LABELS)}"
            )


def _check_matchers(matchers: Sequence[str], path: Path) -> Iterator[NotifyFinding]:
    for text in matchers:
        try:
            parse_matcher(text)
        except MatcherError as error:
            yield NotifyFinding(path, str(error))


def _check_maintenance(window: MaintenanceEntry, path: Path) -> Iterator[NotifyFinding]:
    if not window.match:
        yield NotifyFinding(
            (*path, "match"), 'needs at least one matcher; "scope=~.*" is everything'
        )
    yield from _check_matchers(window.match, (*path, "match"))
    if not _TIME_OF_DAY.fullmatch(window.start):
        yield NotifyFinding((*path, "start"), "must be a time of day such as 22:00")
    if window.until:
        try:
            parse_rfc3339(window.until)
        except ValueError:
            yield NotifyFinding(
                (*path, "until"), "must be a time with its zone, such as 2026-12-31T00:00:00Z"
            )
