"""Show values from clients and files in messages."""

from __future__ import annotations

import json

SHORT = 80
"""Most characters of a value that a message shows."""


def shown(value: object) -> str:
    """Return a value as JSON, shortened to keep the message readable."""
    return shortened(json.dumps(value, ensure_ascii=False))


def shortened(text: str, limit: int = SHORT) -> str:
    """Return the text; if it is longer than the limit, its beginning and its length."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
