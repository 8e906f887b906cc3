"""What must hold in the lists of rules of a policy document; every finding has its path.

Here stands what holds for every kind of rule; what holds within one entry is checked by its kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from meterline.control.policy.document import RulesEntry
from meterline.control.policy.yaml_tree import Path
from meterline.schemas.policy_entry import Entry
from meterline.schemas.policy_kinds import PolicyKinds, RuleEntry

# Every rule is evaluated for every scope: more than this is a slip, and an hour's work per hour.
RULES_PER_KIND_MAX = 10
_RULE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)


def check_rule_kinds(rules: RulesEntry, kinds: PolicyKinds) -> Iterator[tuple[Path, str]]:
    """Everything that does not make sense in well-typed rules."""
    for kind in kinds.rules.values():
        path: Path = ("rules", kind.name)
        written = getattr(rules, kind.name)
        entries: Sequence[Entry] = written if kind.is_list else (written,)
        places: Sequence[Path] = [path]
        if kind.is_list:
            yield from _check_ids(path, written)
            places = [(*path, position) for position in range(len(written))]
        for place, entry in zip(places, entries, strict=True):
            for name, reason in kind.check(entry):
                yield (*place, name), reason


def _check_ids(path: Path, entries: Sequence[RuleEntry]) -> Iterator[tuple[Path, str]]:
    if len(entries) > RULES_PER_KIND_MAX:
        yield path, f"has {len(entries)} rules, at most {RULES_PER_KIND_MAX}"
    times = Counter(entry.id for entry in entries)
    for position, entry in enumerate(entries):
        if not _RULE_ID.fullmatch(entry.id):
            yield (
                (*path, position, "id"),
                "must be lower-case letters, digits, '-' and '_', at most 40",
            )
        elif times[entry.id] > 1:
            yield (*path, position, "id"), f"rule {entry.id!r} is there twice"
        if not entry.scope_types:
            yield (*path, position, "scope_types"), "names no level: the rule would do nothing"
