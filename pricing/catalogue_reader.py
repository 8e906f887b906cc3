"""Reads catalogue files: those that ship with the package, and an operator's.

What they mean is `pricing.catalogue`, which reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from meterline.pricing.catalogue import Catalogue, build_catalogue

SHIPPED_FILES = ("2026-11.json", "overrides.json")
"""List prices, then the reviewed exceptions to them."""


def load_catalogue(paths: Sequence[Path] = ()) -> Catalogue:
    """Load the shipped list prices, overridden by the files in their order.

    A later card replaces an earlier one of the same seller and model, whole: a relay's own
    prices override list prices.

    Raises:
        CatalogueError: with every fault of every file.
        OSError: a file cannot be read.
    """
    return build_catalogue(catalogue_files(paths))


def catalogue_files(paths: Sequence[Path] = ()) -> list[tuple[str, bytes]]:
    """Name and content of the files that `load_catalogue` reads; OSError if one cannot be read."""
    shipped = resources.files("meterline.pricing.catalogues")
    contents = [(name, (shipped / name).read_bytes()) for name in SHIPPED_FILES]
    return contents + [(path.name, path.read_bytes()) for path in paths]
