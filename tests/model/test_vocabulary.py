"""The two-way map between labels and ids."""

import pytest

from arraylstm import DataError, UnknownItemError, Vocabulary


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
        ([["a"], "b"], None, r"a string or an integer, got \['a'\]"),
        ([{}], None, "a string or an integer, got {}"),
        (["a"], "z", "the unknown item 'z' is not among the labels"),
        (["a"], ["x"], r"the unknown item \['x'\] is not among the labels"),
        ([1], True, "the unknown item True is not among the labels"),
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


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.json", '["a", 5, "ü"]', Vocabulary(["a", 5, "ü"])),
        ("labels.json", '{"labels": ["a", "<unk>"], "unknown": "<unk>"}', Vocabulary(["a", "<unk>"], "<unk>")),
        ("labels.json", '{"labels": ["a", 5], "unknown": null}', Vocabulary(["a", 5])),
        ("labels.json", '\ufeff["a"]', Vocabulary(["a"])),
        ("labels.txt", "a\n5\n[PAD]\nin two words\n", Vocabulary(["a", "5", "[PAD]", "in two words"])),
        ("labels", "a\r\nü", Vocabulary(["a", "ü"])),
    ],
)
def test_a_file_of_labels_is_read_in_the_order_of_ids(name, text, expected, tmp_path):
    """JSON as a list or as a bundle has it, else a label a line."""
    (tmp_path / name).write_bytes(text.encode())
    assert Vocabulary.read(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", b"a\nb\n", "v.json: is not JSON: Expecting value"),
        ("v.json", b"[" * 100_000, "v.json: is not JSON"),
        (
            "v.json",
            b'{"labels": null, "unknown": null}',
            'v.json: must be a JSON list of labels, or an object with "la',
        ),
        ("v.json", b'{"a": 0, "b": 1}', "v.json: must be a JSON list"),
        ("v.json", b'{"labels": ["a"], "unk": "a"}', "v.json: must be a JSON list"),
        ("v.json", b"5", "v.json: must be a JSON list"),
        ("v.json", b'["a", 1.5]', "v.json: a label must be a string or an integer, got 1.5"),
        ("v.json", b'[["a"], "b"]', r"v.json: a label must be a string or an integer, got \['a'\]"),
        ("v.json", b"[{}]", "v.json: a label must be a string or an integer, got {}"),
        ("v.json", b'{"labels": ["a"], "unknown": "z"}', "v.json: the unknown item 'z' is not among the labels"),
        ("v.json", b'{"labels": ["a"], "unknown": ["x"]}', r"v.json: the unknown item \['x'\] is not among"),
        ("v.txt", b"a\nb\na\n", "v.txt: label 'a' stands in the vocabulary twice"),
        ("v.txt", b"a\n\nb\n", "v.txt: line 2 has no label"),
        ("v.txt", b"", "v.txt: line 1 has no label"),
        ("v.txt", b"a\n\xff\n", r"v.txt: is not UTF-8 text \(byte 2\)"),
    ],
)
def test_a_file_that_holds_no_vocabulary_is_refused_by_name(name, content, message, tmp_path):
    """The message says which file and what is wrong with it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Vocabulary.read(tmp_path / name)


def test_a_file_of_labels_that_is_missing_is_named(tmp_path):
    """As every other file is."""
    with pytest.raises(DataError, match=r"labels\.txt: No such file"):
        Vocabulary.read(tmp_path / "labels.txt")
