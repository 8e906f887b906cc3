"""What must hold in the `notify` part of a policy document; every finding has its path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from meterline.control.policy.notify_document import (
    CHANNEL_FIELDS,
    COMMON_FIELDS,
    ChannelEntry,
    MaintenanceEntry,
    NotifyEntry,
    RouteEntry,
)
from meterline.control.policy.yaml_tree import Path
from meterline.schemas.matchers import LABELS, MatcherError, parse_matcher
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.scopes import ScopeError, check_identifier
from meterline.schemas.templates import TemplateError, check_template

# POSIX: what a shell can set.
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
ENVIRONMENT_NAME_LENGTH_MAX = 128
# A distribution list is the mail server's business.
RECIPIENTS_MAX = 20
LOG_CHANNEL = "log"
_EITHER_URL = frozenset({"webhook", "alertmanager"})
_REQUIRED: dict[str, tuple[str, ...]] = {
    "slack": ("url_env",),
    "pagerduty": ("routing_key_env",),
    "email": ("host", "sender", "recipients"),
}
_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+", re.ASCII)
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_ENVIRONMENT_FIELDS = ("secret_env", "url_env", "routing_key_env", "token_env", "password_env")


class NotifyFinding(NamedTuple):
    """One thing that does not make sense."""

    path: Path
    reason: str


def check_notify(notify: NotifyEntry) -> Iterator[NotifyFinding]:
    """Everything that does not make sense in a well-typed `notify` part."""
    yield from _check_unique("channels", [channel.id for channel in notify.channels])
    for position, channel in enumerate(notify.channels):
        yield from _check_channel(channel, ("notify", "channels", position))
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


def _check_channel(channel: ChannelEntry, path: Path) -> Iterator[NotifyFinding]:
    allowed = CHANNEL_FIELDS[channel.type]
    for name in sorted(channel.model_fields_set - allowed - COMMON_FIELDS):
        yield NotifyFinding(
            (*path, name),
            f"is not a field of a {channel.type} channel; known here: "
            f"{', '.join(sorted(allowed | COMMON_FIELDS))}",
        )
    if channel.id == LOG_CHANNEL:
        yield NotifyFinding((*path, "id"), "'log' is the worker's log, which is always there")
    for name in _ENVIRONMENT_FIELDS:
        value = getattr(channel, name)
        if value and not (
            len(value) <= ENVIRONMENT_NAME_LENGTH_MAX and _ENVIRONMENT_NAME.fullmatch(value)
        ):
            # Not quoted: somebody may have written the secret itself.
            yield NotifyFinding(
                (*path, name),
                "must be the name of an environment variable (A-Z, 0-9 and _), never the secret",
            )
    yield from _check_templates(channel, path)
    yield from _check_required(channel, path)
    if channel.url:
        yield from _check_url(channel, path)


def _check_templates(channel: ChannelEntry, path: Path) -> Iterator[NotifyFinding]:
    for name in ("title", "text"):
        template = getattr(channel, name)
        if template and name in CHANNEL_FIELDS[channel.type]:
            try:
                check_template(template)
            except TemplateError as error:
                yield NotifyFinding((*path, name), str(error))


def _check_required(channel: ChannelEntry, path: Path) -> Iterator[NotifyFinding]:
    if channel.type == "email":
        yield from _check_email(channel, path)
    if channel.type in _EITHER_URL and bool(channel.url) == bool(channel.url_env):
        yield NotifyFinding((*path, "url"), "is required: write either url or url_env, not both")
    for name in _REQUIRED.get(channel.type, ()):
        if not getattr(channel, name):
            yield NotifyFinding((*path, name), f"is required for a {channel.type} channel")


def _check_email(channel: ChannelEntry, path: Path) -> Iterator[NotifyFinding]:
    for name, addresses in (("sender", (channel.sender,)), ("recipients", channel.recipients)):
        for address in addresses:
            if address and not _ADDRESS.fullmatch(address):
                yield NotifyFinding((*path, name), f"{address!r} is not a mail address")
    if len(channel.recipients) > RECIPIENTS_MAX:
        reason = f"has {len(channel.recipients)} addresses, at most {RECIPIENTS_MAX}: use a list"
        yield NotifyFinding((*path, "recipients"), reason)
    if channel.tls == "none" and not channel.allow_private_address:
        yield NotifyFinding(
            (*path, "tls"), "none sends in the clear: only with allow_private_address: true"
        )
    if bool(channel.username) != bool(channel.password_env):
        yield NotifyFinding(
            (*path, "username"), "and password_env belong together: write both or neither"
        )
    elif channel.username and channel.tls == "none":
        yield NotifyFinding((*path, "tls"), "none would send the password in the clear")


def _check_url(channel: ChannelEntry, path: Path) -> Iterator[NotifyFinding]:
    """The URL is not quoted: receivers' URLs often carry a token."""
    try:
        parts = urlsplit(channel.url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        yield NotifyFinding((*path, "url"), "is not a URL")
        return
    if parts.scheme != "https" and not (parts.scheme == "http" and channel.allow_private_address):
        yield NotifyFinding(
            (*path, "url"),
            "must begin with https:// (http:// only with allow_private_address: true)",
        )
    elif not usable:
        yield NotifyFinding((*path, "url"), "names no host")
    if parts.username or parts.password:
        yield NotifyFinding(
            (*path, "url"), "carries a user name or password: use secret_env, which signs"
        )


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
