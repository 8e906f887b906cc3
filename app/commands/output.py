"""JSON for machines: alone on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(content: Any) -> None:
    """Print one JSON object on one line."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
