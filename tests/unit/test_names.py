"""One name, one meaning: public classes of the product."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "schemas",
    "pricing",
    "backends",
    "streams",
    "sinks",
    "alerting",
    "reports",
    "relay",
    "control",
    "operations",
    "app",
    "embedded",
)


def public_classes() -> dict[str, list[str]]:
    """Files by the name of a public class that they define at their top level."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_public_class_name_has_two_meanings() -> None:
    """A class name is defined in one module of the product, so that a reader finds one meaning."""
    found = public_classes()
    assert len(found) > 500, "the packages are where this test looks"
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_every_package_is_searched() -> None:
    """A package that is added to the product is searched as well."""
    packaged = {path.name for path in (ROOT / "src" / "meterline").iterdir() if path.is_symlink()}
    assert packaged == set(PACKAGES)
