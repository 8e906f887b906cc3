"""YAML text to plain values that remember their lines; every scalar stays text.

YAML's own reading would make 0.1 a float and `no` a boolean. Nothing is constructed but mappings,
lists, text and None, whatever tags the text carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

# 50,000 keys with a budget each; a larger file is generated, and should be split.
FILE_CHARACTERS_MAX = 8 * 1024 * 1024
# Aliases repeat what they name: a few lines of them could otherwise stand for billions of values.
VALUES_MAX = 500_000
# The hierarchy has seven levels.
DEPTH_MAX = 32

# libyaml where the wheel has it: ten times as fast, the same nodes.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the top."""


@dataclass(frozen=True, slots=True)
class YamlFault:
    """Something that no document may contain, before any field is read."""

    path: Path
    line: int | None
    reason: str


@dataclass(slots=True)
class YamlTree:
    """A document: its values, the line of each path (counted from 1), and what is wrong."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[YamlFault] = field(default_factory=list)
    values: int = 0

    def line_of(self, path: Path) -> int | None:
        """The line of a path, or of the nearest one above it that the text has."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return line
        return None

    def value_at(self, path: Path) -> Any:
        """The value at a path that the text has."""
        value = self.value
        for step in path:
            value = value[step]
        return value


def read_yaml(text: str) -> YamlTree:
    """Read one YAML document; faults are in the result, nothing is raised."""
    tree = YamlTree()
    if len(text) > FILE_CHARACTERS_MAX:
        reason = f"has {len(text):,} characters, at most {FILE_CHARACTERS_MAX:,}"
        tree.faults.append(YamlFault((), None, reason))
        return tree
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        tree.faults.append(YamlFault((), line, f"is not YAML: {error.problem or error.context}"))
        return tree
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        tree.faults.append(YamlFault((), None, f"is not YAML: {reason}"))
        return tree
    if node is not None:
        tree.value = _convert(tree, node, ())
    return tree


def _convert(tree: YamlTree, node: yaml.Node, path: Path) -> Any:
    tree.lines.setdefault(path, node.start_mark.line + 1)
    tree.values += 1
    if tree.values > VALUES_MAX or len(path) > DEPTH_MAX:
        if tree.values <= VALUES_MAX + 1:
            reason = f"is nested deeper than {DEPTH_MAX} levels or repeats itself too often"
            tree.faults.append(YamlFault((), tree.line_of(path), reason))
            tree.values = VALUES_MAX + 1  # one fault of this kind is enough: stop looking
        return None
    match node:
        case yaml.MappingNode():
            return _convert_mapping(tree, node, path)
        case yaml.SequenceNode():
            return [
                _convert(tree, item, (*path, position)) for position, item in enumerate(node.value)
            ]
        case _:
            return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _convert_mapping(tree: YamlTree, node: yaml.MappingNode, path: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            tree.faults.append(YamlFault(path, line, "has a field name that is not text"))
            continue
        name = str(key_node.value)
        inner = (*path, name)
        if name in found:
            reason = f"is written twice; the first is in line {tree.lines[inner]}"
            tree.faults.append(YamlFault(inner, line, reason))
            continue
        # The line of the name: a mapping's own first line is one below it.
        tree.lines[inner] = line
        found[name] = _convert(tree, value_node, inner)
    return found
