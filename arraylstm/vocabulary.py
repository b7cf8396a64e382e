"""Vocabulary: the map between item labels and the integer ids that a model works with, both ways."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from arraylstm.errors import DataError, UnknownItemError, one_line

Label = str | int
UNKNOWN = "<unk>"


class Vocabulary:
    """Item labels by id, with an optional item that stands for every unknown one.

    Labels are strings or integers and keep their type: 5 and "5" are two labels.

    Args:
        labels: the label of id 0, 1, ...
        unknown: the label among them that unknown labels are encoded as; None refuses unknown labels.

    Raises:
        ValueError: no labels, a label twice, one of another type, an integer beyond 64 bits, or an `unknown` that is
            not one of them.
    """

    def __init__(self, labels: Sequence[Label], unknown: Label | None = None) -> None:
        self.labels = list(labels)
        self.unknown = unknown
        for label in self.labels:
            _check_label(label)
        self._ids = {label: id for id, label in enumerate(self.labels)}
        if not self.labels:
            raise ValueError("a vocabulary needs at least one label")
        if len(self._ids) != len(self.labels):
            raise ValueError(f"label {self._first_repeated()!r} stands in the vocabulary twice")
        if unknown is not None and unknown not in self:
            raise ValueError(f"the unknown item {unknown!r} is not among the labels")

    @classmethod
    def from_sessions(cls, sessions: Iterable[Sequence[Label]], min_count: int = 1) -> "Vocabulary":
        """Collect the labels of sessions, most frequent first (ties in order of first appearance).

        With `min_count` above 1, labels seen less often are left out, and the unknown item `<unk>` stands for them.
        """
        counts: dict[Label, int] = {}
        for session in sessions:
            for label in session:
                counts[label] = counts.get(label, 0) + 1
        kept = sorted((label for label in counts if counts[label] >= min_count), key=lambda label: -counts[label])
        if min_count == 1:
            return cls(kept)
        return cls([*(label for label in kept if label != UNKNOWN), UNKNOWN], UNKNOWN)

    @classmethod
    def read(cls, path: str | Path) -> "Vocabulary":
        """Read a vocabulary from a file, in the order of ids.

        A `.json` file holds a list of labels, or an object with `labels` and, optionally, `unknown`, as a bundle's
        `vocabulary.json` does. Any other file holds one label a line; all are strings.

        Raises:
            DataError: the file is missing, not UTF-8, or does not hold labels as a vocabulary needs them.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            return cls(**_parse_json(text)) if path.suffix == ".json" else cls(_parse_lines(text))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from None
        except ValueError as error:
            raise DataError(f"{path}: {one_line(error)}") from None

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown item; None if there is none."""
        return None if self.unknown is None else self._ids[self.unknown]

    def fields(self) -> dict[str, Any]:
        """Return the constructor's arguments, as checkpoints and bundles keep them."""
        return {"labels": self.labels, "unknown": self.unknown}

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.labels)

    def __contains__(self, label: object) -> bool:
        """Return whether the label has an id of its own."""
        return type(label) in (str, int) and label in self._ids

    def __eq__(self, other: object) -> bool:
        """Compare labels, their order and the unknown item."""
        return isinstance(other, Vocabulary) and (self.labels, self.unknown) == (other.labels, other.unknown)

    __hash__ = None  # type: ignore[assignment]  # compared by content, as lists are

    def id(self, label: Label) -> int:
        """Return the id of a label.

        Raises:
            UnknownItemError: the label is not in the vocabulary, which has no unknown item.
        """
        if label in self:
            return self._ids[label]
        if self.unknown is not None:
            return self._ids[self.unknown]
        some = ", ".join(repr(known) for known in self.labels[:5])
        raise UnknownItemError(f"unknown item {label!r}; the vocabulary has {len(self)} items, such as {some}")

    def encode(self, labels: Iterable[Label]) -> list[int]:
        """Return the ids of labels; raises as `id` does."""
        return [self.id(label) for label in labels]

    def decode(self, ids: Iterable[int]) -> list[Label]:
        """Return the labels of ids.

        Raises:
            IndexError: an id is negative or not below the number of items.
        """
        return [self.labels[self._checked(id)] for id in ids]

    def _checked(self, id: int) -> int:
        if not 0 <= id < len(self):
            raise IndexError(f"item id {id} is outside 0..{len(self) - 1}")
        return id

    def _first_repeated(self) -> Label:
        return next(label for id, label in enumerate(self.labels) if self._ids[label] != id)


def require_labels(vocabulary: Vocabulary | None, num_items: int) -> None:
    """Raise ValueError unless a vocabulary, if there is one, has a label for each item."""
    if vocabulary is not None and len(vocabulary) != num_items:
        raise ValueError(f"the vocabulary has {len(vocabulary)} items, the model {num_items}")


def _check_label(label: object) -> None:
    """Raise ValueError for a label that some JSON reader could not take or tell from others."""
    if type(label) is int and not -(2**63) <= label < 2**63:
        raise ValueError(f"an integer label must fit in 64 bits with sign, got {label}; use a string")
    if type(label) not in (str, int):
        raise ValueError(f"a label must be a string or an integer, got {label!r}")
    if type(label) is str and not label.isascii():
        try:
            label.encode()
        except UnicodeEncodeError:
            raise ValueError(f"a label must be valid Unicode, got {label!r}") from None


def _parse_json(text: str) -> dict[str, Any]:
    """Return the constructor's arguments from JSON."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {one_line(error)}") from None
    fields = {"labels": content} if isinstance(content, list) else content
    if (
        not isinstance(fields, dict)
        or not isinstance(fields.get("labels"), list)
        or fields.keys() - {"labels", "unknown"}
    ):
        raise ValueError('must be a JSON list of labels, or an object with "labels", a list, and "unknown"')
    return fields


def _parse_lines(text: str) -> list[str]:
    """Return the labels, one from each line."""
    labels = text.removesuffix("\n").split("\n")
    if "" in labels:
        raise ValueError(f"line {labels.index('') + 1} has no label; a label that is empty needs a .json file")
    return labels
