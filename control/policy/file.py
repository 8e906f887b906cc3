"""The policy file: YAML text to a checked document, with every error at once.

    PolicyFileError     all faults of one file, each with its path, line and reason

Reading goes in three steps, and each adds its faults to the same list:
1. YAML: text to values with lines (`control.policy.yaml_tree`).
2. Fields: values to a document (`control.policy.document`). What does not fit is reported and cut
   out, so that the rest can still be checked.
3. Sense: what holds between fields (`control.policy.checks`).
"""

from __future__ import annotations

import difflib
from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

from meterline.control.policy.checks import check
from meterline.control.policy.document import (
    PolicyDocument,
    document_type,
    entry_at,
    unknown_channel_type,
)
from meterline.control.policy.notify_checks import check_written_channels
from meterline.control.policy.plan import (
    ChangeAction,
    FieldChange,
    PolicyChange,
    audit_entries,
    plan,
)
from meterline.control.policy.yaml_tree import Path, YamlTree, read_yaml
from meterline.schemas.errors import MeterlineError
from meterline.schemas.policy_kinds import ENVIRONMENT_SUFFIX, PolicyKinds

__all__ = [
    "ChangeAction",
    "FieldChange",
    "PolicyChange",
    "PolicyDocument",
    "PolicyFault",
    "PolicyFileError",
    "audit_entries",
    "parse_policy",
    "plan",
]

# Every round cuts out at least one wrong value; a file with more wrong values than this is not
# a policy, and the faults found so far say enough.
ROUNDS_MAX = 20
# How much of a wrong value is quoted.
QUOTE_LENGTH_MAX = 40
# Below this a suggestion is a guess; "buget" and "budget" have 0.91.
SIMILARITY_MIN = 0.6


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One thing that is wrong in the file."""

    path: str
    """`organisations[acme].departments[research].budget.month_usd`; empty for the whole file."""
    line: int | None
    reason: str

    @override
    def __str__(self) -> str:
        """The fault as one line, without the file's name."""
        where = f"line {self.line}: " if self.line is not None else ""
        text = f"{where}{self.path}: {self.reason}" if self.path else f"{where}{self.reason}"
        # Names from the file may hold line breaks or a terminal's control codes.
        return "".join(each if each.isprintable() else "?" for each in text)


class PolicyFileError(MeterlineError, ValueError):
    """A policy file that cannot be used; `faults` are all that was found, in the file's order."""

    def __init__(self, source: str, faults: tuple[PolicyFault, ...]) -> None:
        """Take the file's name for messages and at least one fault."""
        self.source = source
        self.faults = faults
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))


def parse_policy(text: str, source: str, kinds: PolicyKinds) -> PolicyDocument:
    """Read and check a policy file.

    Args:
        text: the file's content.
        source: its name, for messages.
        kinds: what channels and rules there are.

    Raises:
        PolicyFileError: with every fault that was found.
    """
    tree = read_yaml(text)
    faults = [PolicyFault(_spell(tree, each.path), each.line, each.reason) for each in tree.faults]
    reading = _Reading(kinds, cut={each.path for each in tree.faults})
    reading.found += [
        (path, reason + _quote(tree.value_at(path), path, kinds))
        for path, reason in check_written_channels(tree.value, kinds)
        if path not in reading.cut
    ]
    document = None if () in reading.cut else _read_fields(tree, reading)
    if document is not None:
        reading.found += _sense(document, reading)
    faults += [
        PolicyFault(_spell(tree, path), tree.line_of(path), reason)
        for path, reason in reading.found
    ]
    if not faults and document is not None:
        return document
    ordered = sorted(set(faults), key=lambda fault: (fault.line or 0, fault.path, fault.reason))
    raise PolicyFileError(source, tuple(ordered))


@dataclass(slots=True)
class _Removed:
    """Paths taken out of the file's values."""

    paths: set[Path] = field(default_factory=set)
    _by_list: dict[Path, list[int]] = field(default_factory=dict)

    def add(self, paths: set[Path]) -> None:
        for path in paths - self.paths:
            self.paths.add(path)
            if path and isinstance(path[-1], int):
                insort(self._by_list.setdefault(path[:-1], []), path[-1])

    def positions(self, path: Path) -> list[int]:
        """The positions taken out of a list, ascending."""
        return self._by_list.get(path, [])


@dataclass(slots=True)
class _Reading:
    """What was found so far, by paths of the file."""

    kinds: PolicyKinds
    found: list[tuple[Path, str]] = field(default_factory=list)
    cut: set[Path] = field(default_factory=set)
    """What is wrong and stays out of the document."""
    removed: _Removed = field(default_factory=_Removed)
    """What is taken out: with a missing field the whole entry that lacks it."""


def _read_fields(tree: YamlTree, reading: _Reading) -> PolicyDocument | None:
    """The document without what does not fit; None when nothing is left of it."""
    value = {} if tree.value is None else tree.value
    for _ in range(ROUNDS_MAX):
        try:
            cut = _without(value, reading.removed, ())
            return document_type(reading.kinds).model_validate(cut)
        except ValidationError as error:
            wrong: set[Path] = set()
            for detail in error.errors():
                path = _original(detail["loc"], reading.removed)
                if path not in reading.cut:  # else it is missing because it was cut out
                    reading.found.append((path, _reason(detail, path, tree, reading.kinds)))
                reading.cut.add(path)
                wrong.add(path[:-1] if detail["type"] == "missing" else path)
            reading.removed.add(wrong)
            if () in wrong:
                return None
    return None


def _sense(document: PolicyDocument, reading: _Reading) -> Iterator[tuple[Path, str]]:
    """What is wrong between fields, as far as it does not come from a field already reported.

    A finding does when a wrong value is the value itself, its holder, or a part of it.
    """
    holding_wrong = {path[:length] for path in reading.cut for length in range(len(path) + 1)}
    for location, reason in check(document, reading.kinds):
        path = _original(location, reading.removed)
        if path not in holding_wrong and path[:-1] not in reading.cut:
            yield path, reason


def _without(value: Any, removed: _Removed, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _without(content, removed, (*path, name))
            for name, content in value.items()
            if (*path, name) not in removed.paths
        }
    if isinstance(value, list):
        return [
            _without(item, removed, (*path, position))
            for position, item in enumerate(value)
            if (*path, position) not in removed.paths
        ]
    return value


def _original(location: Path, removed: _Removed) -> Path:
    """A path of the cut document as a path of the file: list positions move when items go."""
    path: Path = ()
    for step in location:
        if isinstance(step, int):
            position = step
            for gone in removed.positions(path):
                position += gone <= position
            path = (*path, position)
        else:
            path = (*path, step)
    return path


def _reason(detail: ErrorDetails, path: Path, tree: YamlTree, kinds: PolicyKinds) -> str:
    """Pydantic's finding in the words of the policy file."""
    kind = detail["type"]
    context = detail.get("ctx", {})
    match kind:
        case "missing":
            reason = "is required"
        case "extra_forbidden":
            reason = _unknown(path, tree, kinds)
        case "value_error":
            reason = str(context["error"])
        case "greater_than_equal" if context["ge"] == 0:
            reason = "must not be negative" + _quote(detail["input"], path, kinds)
        case _:
            # Pydantic's own message is no template: it may quote a pattern or a value with braces.
            known = _EXPECTED.get(kind)
            reason = detail["msg"] if known is None else known.format(**context)
            reason += _quote(detail["input"], path, kinds)
    return reason


_EXPECTED = {
    "enum": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of reasonable size",
    "int_type": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list (lines that begin with '-')",
    "model_type": "must be a mapping (lines of the form 'name: value')",
    "dict_type": "must be a mapping (lines of the form 'name: value')",
}


def _quote(value: Any, path: Path, kinds: PolicyKinds) -> str:
    if not isinstance(value, str) or any(_may_be_secret(str(step), kinds) for step in path):
        return ""
    short = value if len(value) <= QUOTE_LENGTH_MAX else f"{value[:QUOTE_LENGTH_MAX]}..."
    return f"; got {short!r}"


def _may_be_secret(name: str, kinds: PolicyKinds) -> bool:
    """Whether a field of this name may hold a secret, also one that no kind has."""
    return name.endswith((ENVIRONMENT_SUFFIX, "url")) or name in kinds.secret_fields


def _unknown(path: Path, tree: YamlTree, kinds: PolicyKinds) -> str:
    if path[:2] == ("notify", "channels"):
        channel, within = path[:3], path[3:]
        kind = kinds.channel_kind(tree.value_at(channel).get("type"))
        of_another = any(
            within == (name,) for each in kinds.channels.values() for name in each.fields
        )
        if kind is not None and of_another:
            known_here = ", ".join(sorted(kind.fields))
            return f"is not a field of a {kind.name} channel; known here: {known_here}"
        shape = unknown_channel_type(kinds) if kind is None else kind.entry
        entry = entry_at(shape, within[:-1])
    else:
        entry = entry_at(document_type(kinds), path[:-1])
    fields = entry.model_fields.items()
    known = [field.alias or name for name, field in fields]
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=SIMILARITY_MIN)
    if close:
        return f"is not a known field; did you mean {close[0]!r}?"
    return f"is not a known field; known here: {', '.join(known)}"


def _spell(tree: YamlTree, path: Path) -> str:
    """A path as shown to operators: list items by their id, where they have one."""
    text = ""
    value = tree.value
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
            named = value.get("id") if isinstance(value, Mapping) else None
            text += f"[{named if isinstance(named, str) else step}]"
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
            text += f".{step}" if text else step
    return text
