"""The labels of items, and the ids by which the model knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from arraylstm_serve.api.problems import UNKNOWN_ITEM, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.text import shown

EXAMPLES = 5


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


class Vocabulary:
    """Maps labels to ids 0..num_items-1 and back. JSON's types are kept apart: 5 is not "5".

    Args:
        num_items: how many items the model has.
        labels: the label of each id; None if the ids themselves are the labels.
        unknown: the label that stands for every item not listed; None if unlisted items are refused.

    Attributes:
        labels: the label of each id; the ids if they are the labels.
        unlabelled: whether the ids themselves are the labels.

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
        self._unknown = None if unknown is None else self._ids[unknown]

    def __len__(self) -> int:
        return len(self.labels)

    def strict(self) -> Vocabulary:
        """Return a vocabulary with the same labels that refuses items not listed."""
        return self if self._unknown is None else Vocabulary(len(self), self.labels)

    def encode(self, items: Iterable[Item]) -> list[int]:
        """Return the ids of items. An item that is not listed becomes the unknown item.

        Raises:
            Problem: `unknown_item`: an item is not listed, and the vocabulary has no unknown item.
        """
        if self._unknown is None:
            return self.encode_known(items)
        return [self._ids.get(item, self._unknown) for item in items]

    def encode_known(self, items: Iterable[Item]) -> list[int]:
        """Return the ids of items, which must all be listed.

        Raises:
            Problem: `unknown_item`: an item is not listed.
        """
        ids = self._ids
        try:
            return [ids[item] for item in items]
        except KeyError as error:
            raise Problem(UNKNOWN_ITEM, self._refusal(error.args[0])) from None

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

    def spelt(self, text: str) -> Item:
        """Return the label that a text spells: an integer if the model lists that and not the text, else the text."""
        if text not in self._ids:
            try:
                number = int(text)
            except ValueError:
                return text
            if number in self._ids and str(number) == text:
                return number
        return text

    def _refusal(self, item: Item) -> str:
        if self.unlabelled:
            return f"Item {shown(item)} is not known; allowed are the integers 0 to {len(self) - 1}."
        examples = ", ".join(shown(label) for label in self.labels[:EXAMPLES])
        allowed = f"allowed are the model's {len(self)} labels, such as {examples}"
        return f"Item {shown(item)} is not known; {allowed}."
