"""The labels of items, and the ids by which the model knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Literal

from arraylstm_serve.api.problems import UNKNOWN_ITEM, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.text import shown

EXAMPLES = 5
LONGEST_INTEGER = len(str(-(2**63)))
"""Characters of the longest integer that may be an item."""

UNLISTED_BYTES = 4096
"""Most bytes that a session's last items take if the vocabulary does not list them: 35 UUIDs, for example."""

NOWHERE: frozenset[int] = frozenset()

Policy = Literal["model", "reject", "skip"]
"""How to treat an item that is not listed. model: it is the unknown item, or is refused if there is none; reject: it is
refused; skip: it is left out."""


class Numbers(Mapping[Item, int]):
    """Maps each id 0..count-1 to itself, without a table: a model may claim any number of items."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, item: Item) -> int:
        if type(item) is int and 0 <= item < self._count:
            return item
        raise KeyError(item)

    def __iter__(self) -> Iterator[Item]:
        return iter(range(self._count))

    def __len__(self) -> int:
        return self._count


def twin(item: Item) -> Item | None:
    """Return the item of JSON's other type that reads the same: "5" for 5, and 5 for "5"; None if there is none."""
    if isinstance(item, int):
        return str(item)
    if item.removeprefix("-").isdecimal() and len(item) <= LONGEST_INTEGER:
        number = int(item)
        return number if str(number) == item else None
    return None


def _size(item: Item) -> int:
    """Return the most bytes of memory that an item takes; Python may keep a text both as characters and as UTF-8."""
    return 80 if isinstance(item, int) else 80 + len(item) * (1 if item.isascii() else 8)


class Vocabulary:
    """Maps labels to ids 0..num_items-1 and back, and treats items that are not listed by a policy, at first `model`.

    The integer 5 and the text "5" mean the same item if only one of them is a label. If both are, each means itself.

    Args:
        num_items: how many items the model has.
        labels: the label of each id; None if the ids themselves are the labels.
        unknown: the label that stands for every item not listed; None if there is none.

    Attributes:
        labels: the label of each id; the ids if they are the labels.
        unlabelled: whether the ids themselves are the labels.
        unknown: the id of the item that stands for every item not listed; None if there is none. It is never predicted.

    Raises:
        ValueError: there are not num_items labels, one is listed twice, or unknown is not a label.
    """

    def __init__(self, num_items: int, labels: Sequence[Item] | None, unknown: Item | None = None) -> None:
        self.labels: Sequence[Item] = range(num_items) if labels is None else labels
        self._ids: Mapping[Item, int] = (
            Numbers(num_items) if labels is None else {label: index for index, label in enumerate(labels)}
        )
        self.unlabelled = labels is None
        if len(self.labels) != num_items:
            raise ValueError(f"{len(self.labels)} labels are listed but the model has {num_items} items")
        if len(self._ids) != num_items:
            raise ValueError("a label is listed twice")
        if unknown is not None and unknown not in self._ids:
            raise ValueError(f"the unknown item {shown(unknown)} is not a label")
        self.unknown = None if unknown is None else self._ids[unknown]
        self._policy: Policy = "model"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def stand_in(self) -> int | None:
        """The id that items not listed get; None if they are refused or left out."""
        return self.unknown if self._policy == "model" else None

    @property
    def last_rank(self) -> int:
        """The rank of an item that is not listed: behind all items that can be predicted."""
        return len(self) + (1 if self.unknown is None else 0)

    def under(self, policy: Policy) -> Vocabulary:
        """Return the same vocabulary under another policy."""
        other = copy(self)
        other._policy = policy
        return other

    def encode(self, items: Sequence[Item]) -> list[int]:
        """Return the ids of items; those not listed are treated by the policy, which may leave them out.

        Raises:
            Problem: `unknown_item`: an item is not listed, and the policy refuses it.
        """
        ids = self._ids
        try:
            return [ids[item] for item in items]
        except KeyError:
            return self._encode_unlisted(items)

    def _encode_unlisted(self, items: Sequence[Item]) -> list[int]:
        if self._policy == "skip":
            return [index for index in map(self._id, items) if index is not None]
        unknown = self.stand_in
        if unknown is None:
            return [self._known(item) for item in items]
        return [unknown if index is None else index for index in map(self._id, items)]

    def unlisted(self, items: Sequence[Item], ids: Sequence[int]) -> frozenset[int]:
        """Return the places of the items that are not listed.

        Args:
            items: the items.
            ids: what `encode` returned for them.
        """
        if len(ids) == len(items) and self.stand_in not in ids:
            return NOWHERE
        return frozenset(place for place, item in enumerate(items) if self._id(item) is None)

    def bounded(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return labels of items, but the unknown item for those not listed that are beyond UNLISTED_BYTES.

        Args:
            items: labels that are listed, or that mean none of these; the newest are at the end, and are kept.
        """
        if self.stand_in is None:
            return tuple(items)
        unknown, left = self.labels[self.stand_in], UNLISTED_BYTES
        kept: list[Item] = []
        for item in reversed(items):
            size = 0 if item in self._ids else _size(item)
            kept.append(item if size <= left else unknown)
            left -= size if size <= left else 0
        return tuple(reversed(kept))

    def encode_known(self, items: Sequence[Item]) -> list[int]:
        """Return the ids of items, which must all be listed.

        Raises:
            Problem: `unknown_item`: an item is not listed.
        """
        ids = self._ids
        try:
            return [ids[item] for item in items]
        except KeyError:
            return [self._known(item) for item in items]

    def decode(self, ids: Iterable[int]) -> tuple[Item, ...]:
        """Return the labels of ids that `encode` returned."""
        return tuple(ids) if self.unlabelled else tuple(map(self.labels.__getitem__, ids))

    def verify(self, ids: list[int]) -> list[int]:
        """Return the ids unchanged, if all of them are ids of items.

        Raises:
            Problem: `unknown_item`: an id is not 0 to num_items - 1.
        """
        for index in ids:
            if not 0 <= index < len(self):
                detail = f"Item id {shown(index)} is not known; allowed are the ids 0 to {len(self) - 1}."
                raise Problem(UNKNOWN_ITEM, detail)
        return ids

    def _id(self, item: Item) -> int | None:
        """Return the id of an item; None if neither it nor its twin is listed."""
        index = self._ids.get(item)
        if index is None and (other := twin(item)) is not None:
            index = self._ids.get(other)
        return index

    def _known(self, item: Item) -> int:
        index = self._id(item)
        if index is None:
            raise Problem(UNKNOWN_ITEM, self._refusal(item))
        return index

    def _refusal(self, item: Item) -> str:
        if self.unlabelled:
            return f"Item {shown(item)} is not known; allowed are the integers 0 to {len(self) - 1}."
        examples = ", ".join(shown(label) for label in self.labels[:EXAMPLES])
        allowed = f"allowed are the model's {len(self)} labels, such as {examples}"
        return f"Item {shown(item)} is not known; {allowed}."
