"""The tree of the product's errors as its classes are, drawn.

    python -m tests.error_tree

In a process of its own, because it imports every module of the product.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator

import meterline
from meterline.embedded.errors import EmbeddedError
from meterline.schemas.errors import MeterlineError

# Lower packages first, as in the dependency rule.
ORDER = [
    "schemas",
    "pricing",
    "backends",
    "control",
    "streams",
    "sinks",
    "alerting",
    "reports",
    "relay",
    "operations",
    "app",
    "embedded",
]
WIDTH = 36


def import_all() -> None:
    """Import every module of the product, so that its classes are known."""
    for found in pkgutil.walk_packages(meterline.__path__, "meterline."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def children(kind: type[BaseException]) -> list[type[BaseException]]:
    """The product's own subclasses of an error, in the order of the drawing."""

    def place(each: type[BaseException]) -> tuple[int, str, str]:
        module = each.__module__.removeprefix("meterline.")
        package = module.partition(".")[0]
        rank = ORDER.index(package) if package in ORDER else len(ORDER)
        return rank, module, each.__name__

    ours = {each for each in kind.__subclasses__() if each.__module__.startswith("meterline.")}
    return sorted(ours, key=place)


def drawn(root: type[BaseException]) -> str:
    """The tree below a root: a line per class, with its module where that is not its parent's."""
    return "\n".join([root.__name__, *_branches(root, "")])


def _branches(kind: type[BaseException], indent: str) -> Iterator[str]:
    public = [each for each in children(kind) if not each.__name__.startswith("_")]
    for each in public:
        last = each is public[-1]
        module = each.__module__.removeprefix("meterline.")
        line = f"{indent}{'└── ' if last else '├── '}{each.__name__}"
        yield f"{line:{WIDTH}} {module}" if each.__module__ != kind.__module__ else line
        yield from _branches(each, indent + ("    " if last else "│   "))


def strays(kind: type[BaseException] = BaseException) -> set[str]:
    """The product's errors that have neither root."""
    found = set()
    for each in kind.__subclasses__():
        if each in {MeterlineError, EmbeddedError}:
            continue
        if each.__module__.startswith("meterline."):
            found.add(f"{each.__module__}.{each.__name__}")
        found |= strays(each)
    # A class with two bases is reached by both.
    return {name for name in found if not _rooted(name)}


def _rooted(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return issubclass(
        getattr(importlib.import_module(module), kind), (MeterlineError, EmbeddedError)
    )


def main() -> None:
    """Print the drawings and the strays as JSON."""
    import_all()
    print(
        json.dumps(
            {
                "meterline": drawn(MeterlineError),
                "embedded": drawn(EmbeddedError),
                "strays": sorted(strays()),
            }
        )
    )


if __name__ == "__main__":
    main()
