"""The two-way map between labels and ids."""

import pytest

from arraylstm import UnknownItemError, Vocabulary


def test_labels_and_ids_map_both_ways():
    """encode and decode are inverse, and keep strings and integers apart."""
    vocabulary = Vocabulary(["a", 5, "5"])
    assert vocabulary.encode(["5", 5, "a"]) == [2, 1, 0]
    assert vocabulary.decode([2, 1, 0]) == ["5", 5, "a"]


def test_an_unknown_label_is_named_with_examples_of_known_ones():
    """Without an unknown item, an unknown label is an error that says what there is."""
    with pytest.raises(UnknownItemError, match="unknown item 'z'; the vocabulary has 2 items, such as 'a', 'b'"):
        Vocabulary(["a", "b"]).encode(["a", "z"])


@pytest.mark.parametrize("label", [True, 1.0, None])
def test_a_label_of_another_type_is_unknown_even_if_it_compares_equal(label):
    """True and 1.0 are not the label 1."""
    with pytest.raises(UnknownItemError):
        Vocabulary(["a", 1]).id(label)


def test_the_unknown_item_stands_for_every_unknown_label():
    """With an unknown item, unknown labels take its id."""
    assert Vocabulary(["a", "<unk>"], unknown="<unk>").encode(["a", "z", 3]) == [0, 1, 1]


@pytest.mark.parametrize("id", [-1, 2])
def test_an_id_outside_the_vocabulary_is_refused(id):
    """decode names the id and the range; -1 is not the last item."""
    with pytest.raises(IndexError, match=rf"item id {id} is outside 0\.\.1"):
        Vocabulary(["a", "b"]).decode([id])


@pytest.mark.parametrize(
    ("labels", "unknown", "message"),
    [
        ([], None, "at least one label"),
        (["a", "b", "a"], None, "label 'a' stands in the vocabulary twice"),
        (["a", 1.5], None, "a string or an integer, got 1.5"),
        (["a", True], None, "a string or an integer, got True"),
        ([2**63], None, "must fit in 64 bits with sign, got 9223372036854775808; use a string"),
        (["\ud800"], None, "must be valid Unicode"),
        (["a"], "z", "the unknown item 'z' is not among the labels"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels, unknown, message):
    """A vocabulary is checked when it is made."""
    with pytest.raises(ValueError, match=message):
        Vocabulary(labels, unknown)


def test_sessions_give_their_labels_most_frequent_first():
    """Ids follow frequency, then first appearance; rare labels share the unknown item."""
    sessions = [["b", "a"], ["a", "c", "b"]]
    assert Vocabulary.from_sessions(sessions).labels == ["b", "a", "c"]
    assert Vocabulary.from_sessions(sessions, min_count=2) == Vocabulary(["b", "a", "<unk>"], unknown="<unk>")


def test_a_label_spelled_like_the_unknown_item_does_not_stand_twice():
    """A data set may itself contain `<unk>`."""
    vocabulary = Vocabulary.from_sessions([["<unk>", "<unk>", "a"]], min_count=2)
    assert vocabulary == Vocabulary(["<unk>"], unknown="<unk>")
