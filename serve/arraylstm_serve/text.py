"""Values of clients and files as messages show them."""

from __future__ import annotations

import json

SHORT = 80
"""Characters of a client's value that a message repeats."""


def shown(value: object) -> str:
    """A client's value as JSON, shortened so that a message stays readable."""
    return shortened(json.dumps(value, ensure_ascii=False))


def shortened(text: str, limit: int = SHORT) -> str:
    """The text, or its beginning and its length where it is long."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
