"""The items that a bundle's model knows, and what the server takes an item for.

An item is listed, or reads the same as a listed one (5 and "5", where only one of them is a label), or is a stranger. A
model with an unknown item takes strangers as that one; the server keeps the newest strangers as the client wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .history import Item

STRANGER_BYTES = 4096
"""How many bytes of a session's last items may be strangers, by the server's count: 80 each, and the characters."""


class Labels:
    """The labels of a model's items.

    Args:
        labels: the label of each id.
        unknown: the label of the unknown item; None if there is none.

    Attributes:
        labels: the label of each id.
        unknown: the id of the unknown item; None if there is none.

    Raises:
        KeyError: `unknown` is not a label.
    """

    def __init__(self, labels: Sequence[Item], unknown: Item | None) -> None:
        self.labels = labels
        self._ids = {label: index for index, label in enumerate(labels)}
        self.unknown = None if unknown is None else self._ids[unknown]

    def listed(self, item: Item) -> int | None:
        """Return the id of an item or of the one that reads the same; None for a stranger."""
        found = self._ids.get(item)
        return self._ids.get(twin(item)) if found is None else found

    def taken(self, item: Item) -> int | None:
        """Return the id that the server takes an item for; None if it refuses it."""
        found = self.listed(item)
        return self.unknown if found is None else found

    def kept(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return a session's last items as the server tells them; it takes all of them."""
        kept: list[Item] = []
        room = STRANGER_BYTES
        for item in reversed(items):
            place, size = self.listed(item), _size(item)
            if place is None and size <= room:
                room -= size
                kept.append(item)
            else:
                kept.append(self.labels[self._sure(item)])
        return tuple(reversed(kept))

    def strangers(self) -> list[Item]:
        """Return items that are not listed and that the server takes: twins of labels, and if it may, unknown ones."""
        twins = [twin(label) for label in self.labels[:50]]
        others: list[Item] = [] if self.unknown is None else ["nobody", 2**53, "ü" * 60, "x" * 1000, "y" * 4000]
        return [item for item in [*twins, *others] if item not in self._ids and self.taken(item) is not None]

    def _sure(self, item: Item) -> int:
        place = self.taken(item)
        assert place is not None, f"the model does not know {item!r}"
        return place


def labels_of(bundle: Path) -> Labels:
    """Return the labels of a bundle.

    Raises:
        OSError: a file cannot be read.
        KeyError, TypeError, ValueError: it is not one of a bundle.
    """
    vocabulary = json.loads((bundle / "vocabulary.json").read_bytes())
    listed: list[Item] | None = vocabulary["labels"]
    count = json.loads((bundle / "manifest.json").read_bytes())["model"]["num_items"]
    return Labels(listed or range(count), vocabulary["unknown"])


def twin(item: Item) -> Item:
    """Return the item of JSON's other type that reads the same, or the item itself if there is none."""
    if isinstance(item, int):
        return str(item)
    try:
        number = int(item) if len(item) <= 20 else None
    except ValueError:
        return item
    return item if number is None or str(number) != item else number


def _size(item: Item) -> int:
    """Return the bytes of memory that the server reckons for a stranger."""
    if isinstance(item, int):
        return 80
    return 80 + len(item) * (1 if item.isascii() else 8)
