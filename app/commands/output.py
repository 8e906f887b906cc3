"""What machines read goes to standard output as JSON, and nothing else goes there with it."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(content: Any) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
