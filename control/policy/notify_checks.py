"""What must hold in the `notify` part of a policy document; every finding has its path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from meterline.control.policy.notify_document import (
    MaintenanceEntry,
    NotifyEntry,
    RouteEntry,
    UnknownChannelEntry,
)
from meterline.control.policy.yaml_tree import Path
from meterline.schemas.channel_urls import one_of_url, usable_url
from meterline.schemas.matchers import LABELS, MatcherError, parse_matcher
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.policy_kinds import (
    ENVIRONMENT_SUFFIX,
    TEMPLATE_FIELDS,
    ChannelEntry,
    FieldFault,
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
        yield from _check_channel(channel, kinds, ("notify", "channels", position))
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


def check_written_channels(value: Any, kinds: PolicyKinds) -> Iterator[NotifyFinding]:
    """What holds for channels of every kind as the file writes them, also in fields not theirs.

    Args:
        value: the whole file's values; what is no list of channels is not looked at.
        kinds: what channels there are.
    """
    notify = value.get("notify") if isinstance(value, Mapping) else None
    channels = notify.get("channels") if isinstance(notify, Mapping) else None
    for position, channel in enumerate(channels if isinstance(channels, list) else ()):
        if not isinstance(channel, Mapping):
            continue
        path: Path = ("notify", "channels", position)
        if kinds.channel_kind(channel.get("type")) is None:
            *most, last = map(repr, kinds.channels)
            expected = f"{', '.join(most)} or {last}" if most else last
            yield NotifyFinding((*path, "type"), f"must be {expected}")
        for name, content in channel.items():
            if str(name).endswith(ENVIRONMENT_SUFFIX) and not _may_name_variable(content):
                # Not quoted: the operator may have written the secret itself.
                yield NotifyFinding(
                    (*path, name),
                    "must be the name of an environment variable (A-Z, 0-9 and _), "
                    "never the secret",
                )


def _may_name_variable(content: Any) -> bool:
    """Also of what is empty, and of what is no text: that is another fault."""
    if not isinstance(content, str) or not content:
        return True
    return len(content) <= ENVIRONMENT_NAME_LENGTH_MAX and bool(
        _ENVIRONMENT_NAME.fullmatch(content)
    )


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
    channel: ChannelEntry, kinds: PolicyKinds, path: Path
) -> Iterator[NotifyFinding]:
    if channel.id == LOG_CHANNEL:
        yield NotifyFinding((*path, "id"), "'log' is the worker's log, which is always there")
    for name in TEMPLATE_FIELDS:
        template = getattr(channel, name, "")
        if isinstance(template, str) and template:
            try:
                check_template(template)
            except TemplateError as error:
                yield NotifyFinding((*path, name), str(error))
    found = (
        _check_unknown(channel)
        if isinstance(channel, UnknownChannelEntry)
        else kinds.channels[channel.type].check(channel)
    )
    for name, reason in found:
        yield NotifyFinding((*path, name), reason)


def _check_unknown(channel: UnknownChannelEntry) -> Iterator[FieldFault]:
    """What holds for the URL of a channel of any kind."""
    written = (getattr(channel, name, None) for name in ("url", "url_env"))
    url, url_env = (value if isinstance(value, str) else "" for value in written)
    # Every kind needs a field of its own; which one is not known here unless it is a URL.
    says_nothing = channel.model_fields_set <= ChannelEntry.model_fields.keys()
    if says_nothing or (url and url_env):
        yield from one_of_url(url, url_env)
    yield from usable_url(url, allow_private_address=channel.allow_private_address)


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
