"""Labels and ids."""

from __future__ import annotations

import pytest

from arraylstm_serve.api.problems import Problem
from arraylstm_serve.bundle.vocabulary import Vocabulary


def test_labels_and_ids_are_inverse_and_typed() -> None:
    """A label's id leads back to the label; the integer 5 and the text "5" are different items."""
    vocabulary = Vocabulary(3, ["a", 5, "5"])
    assert vocabulary.encode(["5", 5, "a"]) == [2, 1, 0]
    assert [vocabulary.labels[index] for index in (2, 1, 0)] == ["5", 5, "a"]


def test_without_labels_items_are_ids() -> None:
    """A vocabulary without labels takes the integers below num_items and nothing else."""
    vocabulary = Vocabulary(3, None)
    assert vocabulary.encode([2, 0]) == [2, 0]
    assert vocabulary.labels[2] == 2
    for item in (3, -1, "0"):
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
