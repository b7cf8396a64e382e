"""Labels and ids."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arraylstm_serve.api.problems import Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.bundle.vocabulary import Vocabulary


def test_labels_and_ids_are_inverse_and_typed() -> None:
    """A label's id leads back to the label; the integer 5 and the text "5" are different items."""
    vocabulary = Vocabulary(3, ["a", 5, "5"])
    assert vocabulary.encode(["5", 5, "a"]) == [2, 1, 0]
    assert [vocabulary.labels[index] for index in (2, 1, 0)] == ["5", 5, "a"]


@pytest.mark.parametrize("unknown", [None, "?"])
@pytest.mark.parametrize("encode", [Vocabulary.encode, Vocabulary.encode_known])
def test_an_item_is_the_label_that_reads_like_it(
    encode: Callable[[Vocabulary, list[Item]], list[int]], unknown: str | None
) -> None:
    """An integer is the label with these digits, and a text the integer that it spells, where only that is a label."""
    labels: list[Item] = ["?", "5", 6, "-7", -8, 9, "9", str(-(2**63)), 2**63 - 1]
    vocabulary = Vocabulary(len(labels), labels, unknown)
    assert encode(vocabulary, [5, "6", -7, "-8", 9, "9", -(2**63), str(2**63 - 1)]) == list(range(1, 9))


@pytest.mark.parametrize(
    "item", ["05", "+5", " 5", "5 ", "5.0", "5_0", "-0", "--5", "-", "", "\u0665", "\u00b2", "5" * 5000, 50, -5]
)
def test_an_item_is_no_label_that_reads_otherwise(item: Item) -> None:
    """Only the digits as JSON writes an integer are that integer."""
    labels: list[Item] = ["?", 5, 0, "00"]
    vocabulary = Vocabulary(4, labels, "?")
    assert vocabulary.encode([item]) == [0]
    assert vocabulary.unlisted([item], [0]) == {0}
    with pytest.raises(Problem, match="is not known"):
        vocabulary.encode_known([item])


def test_the_places_of_unlisted_items_are_told() -> None:
    """Items without a label are told by their place; the unknown item itself, sent by its name, is listed."""
    vocabulary = Vocabulary(3, ["a", "0", "b"], "0")
    items: list[Item] = ["a", "zebra", "0", 0, 7, "b"]
    assert vocabulary.unlisted(items, vocabulary.encode(items)) == {1, 4}
    assert vocabulary.under("reject").unlisted(["a"], [0]) == frozenset()


def test_labels_of_unlisted_items_are_bounded() -> None:
    """Of the labels that are not listed the newest are kept, up to a bound; the others become the unknown item."""
    vocabulary = Vocabulary(2, ["a", "?"], "?")
    short = [f"{number:020}" for number in range(60)]
    assert vocabulary.bounded(["a", *short]) == ("a", *["?"] * 20, *short[20:])
    assert vocabulary.bounded(["a", "z" * 5000, 7, "\u0451" * 503, "y"]) == ("a", "?", 7, "?", "y")
    listed = ["a" * 5000]
    assert Vocabulary(1, listed).bounded(listed * 64) == tuple(listed * 64)


def test_without_labels_items_are_ids() -> None:
    """A vocabulary without labels takes the integers below num_items, as numbers or their digits, and nothing else."""
    vocabulary = Vocabulary(3, None)
    assert vocabulary.encode([2, 0, "1"]) == [2, 0, 1]
    assert vocabulary.labels[2] == 2
    for item in (3, -1, "3", "00", "-0", "one"):
        with pytest.raises(Problem, match="allowed are the integers 0 to 2"):
            vocabulary.encode([item])


def test_unlisted_items_become_the_unknown_item_only_where_there_is_one() -> None:
    """An unlisted item is the unknown item if the vocabulary has one, else it is refused by name."""
    assert Vocabulary(2, ["a", "?"], "?").encode(["zebra", "a"]) == [1, 0]
    with pytest.raises(Problem, match=r'Item "zebra" is not known; allowed are the model\'s 2 labels') as refused:
        Vocabulary(2, ["a", "?"]).encode(["zebra", "a"])
    assert refused.value.kind.code == "unknown_item"


def test_what_is_excluded_must_be_listed() -> None:
    """The unknown item does not stand in where an item must be known."""
    with pytest.raises(Problem, match="zebra"):
        Vocabulary(2, ["a", "?"], "?").encode_known(["zebra"])


def test_a_long_item_is_shortened_in_the_refusal() -> None:
    """A refusal repeats the beginning of a megabyte label and its length, not the whole of it."""
    with pytest.raises(Problem) as refused:
        Vocabulary(1, ["a"]).encode(["z" * 1_000_000])
    assert len(refused.value.detail) < 300
    assert "1000002 characters" in refused.value.detail


@pytest.mark.parametrize(
    ("labels", "unknown", "message"),
    [
        (["a"], None, "1 labels are listed but the model has 2 items"),
        (["a", "a"], None, "a label is listed twice"),
        (["a", "b"], "c", 'the unknown item "c" is not a label'),
        (None, 2, "the unknown item 2 is not a label"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(labels: list[str] | None, unknown: str | None, message: str) -> None:
    """Labels must be num_items different ones and the unknown item one of them."""
    with pytest.raises(ValueError, match=message):
        Vocabulary(2, labels, unknown)
