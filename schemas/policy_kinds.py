"""Kinds of channels and rules, as the policy compiler sees them. Pure.

A kind is one module of `alerting` that declares everything about itself: the fields of its entry
in the policy file, its checks, its published model, and how it works. The compiler
(`control.policy`) knows no kind by name: it is handed `PolicyKinds`, which
`meterline.operations.policy` fills from the registries of `alerting`.

    channels  found by `type:` of an entry of `notify.channels`
    rules     found by the name of a field of the `rules` section
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, Field

from meterline.schemas.alert import Severity
from meterline.schemas.policy_entry import Duration, Entry, Text
from meterline.schemas.policy_notify import ChannelBase
from meterline.schemas.policy_rules import ALL_SCOPES
from meterline.schemas.scopes import ScopeType

DEFAULT_CHANNEL_TYPE = "webhook"
"""The type of a channel that names none."""
ENVIRONMENT_SUFFIX = "_env"
"""Ends the name of a field that names an environment variable."""
TEMPLATE_FIELDS = ("title", "text")
"""Fields that hold a template, where a channel's entry has them."""

FieldFault: TypeAlias = tuple[str, str]
"""A field of an entry and what is wrong with it: `("tls", "none sends in the clear: ...")`."""


class ChannelEntry(Entry):
    """The fields that every channel takes; a kind adds its own."""

    id: Text
    type: str = DEFAULT_CHANNEL_TYPE
    min_severity: Severity | None = None
    """From which severity on; default: that of the published model."""
    allow_private_address: bool = False
    fallback: Text = ""


class RuleEntry(Entry):
    """The fields that every rule of a list takes; a kind adds its own."""

    id: str
    scope_types: tuple[ScopeType, ...] = ALL_SCOPES
    for_: Annotated[Duration, Field(alias="for")] = 0
    renotify: Duration = 0


ChannelEntryT = TypeVar("ChannelEntryT", bound=ChannelEntry)
ChannelT = TypeVar("ChannelT", bound=ChannelBase)
RuleEntryT = TypeVar("RuleEntryT", bound=Entry)
RuleT = TypeVar("RuleT", bound=BaseModel)


class ChannelKind(ABC, Generic[ChannelEntryT, ChannelT]):
    """What the compiler needs to know of a kind of channel."""

    name: str
    """The `type` of its channels in the file and as published."""
    entry: type[ChannelEntryT]
    """The fields of the file. Those that end in `_env` name a variable that holds a secret."""
    published: type[ChannelT]
    secrets: frozenset[str] = frozenset({"url"})
    """Fields beside those in `_env` whose value may hold a secret: never quoted."""

    def check(self, entry: ChannelEntryT, /) -> Iterable[FieldFault]:
        """What must hold between the fields of a well-typed entry."""
        del entry
        return ()

    def compile(self, entry: ChannelEntryT) -> ChannelT:
        """The published model; fields that the file does not write have the model's defaults."""
        return self.published.model_validate(entry.model_dump(mode="json", exclude_unset=True))

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the file may write."""
        return frozenset(self.entry.model_fields)

    @property
    def environment_fields(self) -> tuple[str, ...]:
        """The fields that name an environment variable."""
        return tuple(name for name in self.entry.model_fields if name.endswith(ENVIRONMENT_SUFFIX))

    @property
    def secret_fields(self) -> frozenset[str]:
        """The fields that no message quotes."""
        return self.secrets.union(self.environment_fields)


class RuleKind(ABC, Generic[RuleEntryT, RuleT]):
    """What the compiler needs to know of a kind of rule."""

    name: str
    """Its field in the file's `rules` section: a list of entries, or one mapping."""
    published_field: str
    """Its field in the published RuleSet."""
    entry: type[RuleEntryT]
    is_list: bool = True
    """Whether the field is a list of entries with an id (RuleEntry); else it is one mapping."""
    default: tuple[RuleEntryT, ...] = ()
    """The list where the file does not write the field; a mapping has its fields' defaults."""

    def check(self, entry: RuleEntryT, /) -> Iterable[FieldFault]:
        """What must hold between the fields of a well-typed entry."""
        del entry
        return ()

    @abstractmethod
    def compile(self, entry: RuleEntryT, /) -> RuleT:
        """The published model."""


@dataclass(frozen=True, eq=False)
class PolicyKinds:
    """Every kind by its name; equal only to itself."""

    channels: Mapping[str, ChannelKind[Any, Any]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """By `type`."""
    rules: Mapping[str, RuleKind[Any, Any]] = field(default_factory=lambda: MappingProxyType({}))
    """By field of the `rules` section."""

    def channel_kind(self, written: object) -> ChannelKind[Any, Any] | None:
        """The kind of a channel by the `type` that the file writes; None where there is none."""
        return self.channels.get(DEFAULT_CHANNEL_TYPE if written is None else str(written))

    @cached_property
    def secret_fields(self) -> frozenset[str]:
        """The fields of channels that no message quotes."""
        return frozenset().union(*(kind.secret_fields for kind in self.channels.values()))
