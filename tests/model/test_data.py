"""Reading event files as sessions."""

import os
import threading

import pytest

from arraylstm import DataError
from arraylstm.data import DataOptions, read_sessions, split
from arraylstm.eventlog import generate_sessions


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "events.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_sessions(path, DataOptions(**options))[0]

    return read


def test_lines_are_sessions_of_items_between_blanks(read):
    """Trailing blanks, Windows line ends and empty lines do not make items."""
    assert read("5 22 5 \r\n\n9  11\n") == [["5", "22", "5"], ["9", "11"]]
    assert read("5 22 5 \r\n\n9\t11\n", format="lines") == [["5", "22", "5"], ["9", "11"]]


def test_a_byte_order_mark_is_no_part_of_the_first_item(read):
    """What spreadsheets write before UTF-8 text changes nothing, in lines and in tables."""
    assert read(b"\xef\xbb\xbf5 22\n") == [["5", "22"]]
    assert read(b"\xef\xbb\xbfSessionId,ItemId\n1,a\n") == [["a"]]


def test_a_pipe_is_read_once_and_whole(tmp_path):
    """Input that cannot be read twice, such as a process substitution, loses nothing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = [f"a{number} b\n" for number in range(5000)]
    writer = threading.Thread(target=pipe.write_text, args=("".join(lines),))
    writer.start()
    sessions, form = read_sessions(pipe, DataOptions())
    writer.join()
    assert (len(sessions), sessions[0], form) == (5000, ["a0", "b"], "lines")


def test_times_order_exactly(read):
    """Nanoseconds since the epoch, which a float cannot hold apart, still order their events."""
    times = (1700000000000000002, 1700000000000000001)
    rows = "\n".join(f"s, item{time % 10}, {time}" for time in times)
    assert read(f"SessionId, ItemId, Time\n{rows}\n") == [["item1", "item2"]]


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_a_table_is_recognised_by_its_header_and_ordered_by_time(read, delimiter):
    """Rows of a session may stand anywhere and in any order; equal times keep the file's order."""
    rows = ["SessionId ItemId Time", "1 a 30", "2 x 1", "1 b 10.5", "1 c 30", "2 y 0"]
    content = "\n".join(row.replace(" ", delimiter) for row in rows)
    assert read(content) == [["b", "a", "c"], ["y", "x"]]


def test_a_tables_columns_may_have_any_name_and_quoted_values(read):
    """Columns are named by options; a table without times keeps the file's order."""
    content = 'user,page\nu1,"a, b"\nu2,c\nu1,d\n'
    assert read(content, session_column="user", item_column="page") == [["a, b", "d"], ["c"]]


def test_text_is_read_by_character_in_sessions_of_one_length(read):
    """Every character counts, line ends included."""
    assert read("ab\ncde", format="text", text_length=4) == [["a", "b", "\n", "c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "holds no events"),
        ("\n\n", {}, "holds no events"),
        (b"\xff\xfe", {}, "is not UTF-8 text but UTF-16 text; save it as UTF-8"),
        ("a,b\n1,2\n", {"format": "table"}, "has no column 'SessionId'; its columns are 'a', 'b'"),
        ("", {"format": "table"}, "has no column 'SessionId'"),
        ("SessionId,ItemId\n1,a\n1\n", {}, "line 3 has 1 field, the header 2: '1'"),
        ("SessionId,ItemId\n1,a\n1,\n", {}, "line 3 has no session or no item, in 'ItemId': '1,'"),
        ("SessionId,ItemId,Time\n1,a,noon\n", {}, "line 2 has the time 'noon', which cannot be read"),
        ("SessionId,ItemId,Time\n1,a,nan\n", {}, "line 2 has the time 'nan', which cannot be read"),
        ("user,page\n1,a\n", {"session_column": "usr", "item_column": "page"}, "no column 'usr'.*--session-column"),
        ("SessionId,ItemId,Time\n1,a,1\n", {"time_column": "when"}, "no column 'when'.*: give --time-column"),
        ('SessionId,ItemId\n1,"a\n1,b\n', {}, "line 2 cannot .*: a quote is opened and never closed: '1,\"a'"),
    ],
)
def test_files_that_are_no_sessions_are_refused_with_the_place(read, content, options, message):
    """The error names the file and what is wrong where."""
    with pytest.raises(DataError, match=message):
        read(content, **options)


@pytest.mark.parametrize(
    "content", ["5 22\n\n9\n", "SessionId,ItemId\n1,5\n2,9\n1,22\n", "ItemId;SessionId;Time\n22;1;3\n9;2;9\n5;1;2\n"]
)
def test_an_end_is_the_last_item_of_every_session(read, content):
    """Whatever the form of the file and the order of its rows."""
    assert read(content, session_end="[end]") == [["5", "22", "[end]"], ["9", "[end]"]]


def test_an_end_that_is_an_item_already_is_refused(read):
    """What stands within sessions would be taken for their end; the message has the session and the item."""
    with pytest.raises(DataError, match="session 2 has the item 'x': give --session-end an item that no session has"):
        read("a b\nx c\n", session_end="x")
    with pytest.raises(DataError, match="--session-end is for sessions, but --format is 'text'"):
        read("abc", session_end="x", format="text")
    for nothing in ("", " \t"):
        with pytest.raises(ValueError, match="session_end must be an item"):
            DataOptions(session_end=nothing)


def test_a_missing_file_is_refused(tmp_path):
    """The error names the file."""
    with pytest.raises(DataError, match="nothing.txt: No such file"):
        read_sessions(tmp_path / "nothing.txt", DataOptions())


def test_a_split_shares_out_every_session_once_and_repeats_with_its_seed():
    """Parts have the sizes asked for, hold everything together, and depend only on the seed."""
    parts = split(range(100), (0.1, 0.2), seed=1)
    assert [len(part) for part in parts] == [70, 10, 20]
    assert sorted(session for part in parts for session in part) == list(range(100))
    assert parts == split(range(100), (0.1, 0.2), seed=1) != split(range(100), (0.1, 0.2), seed=2)


def test_too_few_sessions_to_split_are_refused():
    """Every part needs a session."""
    with pytest.raises(DataError, match="2 sessions are too few to hold out 1 and 1 of them"):
        split(range(2), (0.1, 0.2), seed=0)


def test_the_generated_log_repeats_with_its_seed_and_has_loops_and_rare_events():
    """The default data set is one and the same everywhere, and not a toy of three events."""
    sessions = generate_sessions(2000)
    assert sessions == generate_sessions(2000) != generate_sessions(2000, seed=1)
    items = [item for session in sessions for item in session]
    assert len(set(items)) > 25
    assert 0 < items.count("fraud.check") < len(items) / 1000
    assert any(session.count("page.next") > 3 for session in sessions)
