"""What is done to events on the way to sessions: gaps, repeats, starts and ends, bad rows, duplicates."""

import pytest

from arraylstm import DataError
from arraylstm.data import DataOptions, read

USERS = {"user_column": "user", "item_column": "page", "time_column": "at"}


@pytest.fixture
def reading(tmp_path):
    def reading(content, **options):
        path = tmp_path / "events.csv"
        path.write_text(content)
        return read(path, DataOptions(**options))

    return reading


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        (["0", "1799", "3599", "5400", "5400"], None),
        (["1700000000", "1700001800", "1700003600.0", "1700005400.001", "1700005401"], "30min"),
        (["1700000000000", "1700000000500", "1700000001000", "1700000001501", "1700000001502"], "0.5s"),
        (["2024-01-01 10:00", "2024-01-01T11:30", "2024-01-01 13:00", "2024-01-01 14:30:00.0000000001"] * 2, "1.5h"),
        (["2024-01-01", "2024-01-03", "2024-01-05", "2024-01-08", "2024-01-08"], "2d"),
    ],
)
def test_a_session_ends_where_no_event_follows_for_longer(reading, times, gap):
    """To the gap exactly, in the unit that the times are written in, in whatever order they stand."""
    times = times[:4]
    rows = "".join(f"ann,{item},{at}\n" for item, at in reversed(list(zip("abcd", times))))
    if gap is None:
        with pytest.raises(DataError, match="which says no distance in seconds: gaps need ISO 8601"):
            reading(f"user,page,at\n{rows}", **USERS, session_gap="30min")
        return
    found = reading(f"user,page,at\n{rows}", **USERS, session_gap=gap)
    assert found.sessions == [["a", "b", "c"], ["d"]]
    assert f"1 user cut at gaps of more than {gap}" in found.words


def test_users_are_not_mixed_and_their_sessions_have_the_time_of_their_last_event(reading):
    """Each is cut by itself."""
    rows = "ann,a,1700000000\nben,x,1700001000\nann,b,1700009000\nben,y,1700002000\n"
    found = reading(f"user,page,at\n{rows}", **USERS, session_gap="1h")
    assert found.sessions == [["a"], ["b"], ["x", "y"]]
    assert found.ends == [1700000000, 1700009000, 1700002000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_column": "u"}, "user_column needs session_gap, such as 30min"),
        ({"user_column": "u", "session_column": "s", "session_gap": "1h"}, "say the same of events: give one"),
        ({"session_gap": "30"}, "session_gap must be a number above 0 with s, min, h or d, such as 30min, got '30'"),
        ({"session_gap": "0min"}, "session_gap must be"),
        ({"session_gap": "-1h"}, "session_gap must be"),
        ({"session_gap": "1h", "time_column": "none"}, "session_gap needs times, and time_column is 'none'"),
        ({"bad_rows": -1}, "bad_rows must be an integer of at least 0, got -1"),
        ({"session_start": "x", "session_end": "x"}, "session_start and session_end must differ, got 'x' twice"),
        ({"session_start": " "}, "session_start must be an item with a visible character"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    """Each says what it got, or what it needs."""
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)


def test_a_gap_needs_a_column_of_times(reading):
    """The flag is named."""
    with pytest.raises(DataError, match="--session-gap needs times: give --time-column"):
        reading("user,page\n1,a\n", user_column="user", item_column="page", session_gap="1h")
    with pytest.raises(DataError, match="--session-gap describes a table, but --format is 'lines'"):
        reading("a b\n", session_gap="1h", format="lines")


@pytest.mark.parametrize("content", ["a a b b a\n\nx x\n", "ItemId,SessionId\na,1\na,1\nb,1\nb,1\na,1\nx,2\nx,2\n"])
def test_repeats_are_dropped_and_starts_and_ends_put_on_on_demand(reading, content):
    """Later visits of an item stay; what was done is said and recorded."""
    found = reading(content, drop_repeats=True, session_start="[in]", session_end="[out]")
    assert found.sessions == [["[in]", "a", "b", "a", "[out]"], ["[in]", "x", "[out]"]]
    assert found.words.endswith("3 repeats dropped, each session begun by '[in]', each session ended by '[out]'")
    assert (found.record["repeats"], found.record["events"]) == (3, 8)
    assert reading(content).sessions == [["a", "a", "b", "b", "a"], ["x", "x"]]
    with pytest.raises(DataError, match="session 1 has the item 'b': give --session-start an item that no session has"):
        reading(content, session_start="b")


def test_repeats_are_those_of_the_order_in_time(reading):
    """Not those of neighbouring rows."""
    rows = "SessionId,ItemId,Time\n1,a,1\n1,a,3\n1,b,2\n"
    assert reading(rows, drop_repeats=True).sessions == [["a", "b", "a"]]


BAD = "SessionId,ItemId,Time\n1,a,1\n1,b\n1,,3\n1,d,noon\n1,e,5\n# gone,,\nSessionId,ItemId,Time\n1,f,6\n"


def test_bad_rows_are_left_out_counted_and_shown_up_to_a_limit(reading):
    """The first ones are shown with their line; one more than allowed is refused with its own."""
    found = reading(BAD, bad_rows=5)
    assert found.sessions == [["a", "e", "f"]]
    assert found.record["bad_rows"] == 5
    assert (
        "5 bad rows left out (line 3 has 2 fields, the header 3: '1,b'; line 4 has no session or no item, in 'ItemId': "
        "'1,,3'; line 5 has the time 'noon', which cannot be read; and 2 more)"
    ) in found.words
    with pytest.raises(DataError, match="line 8 is the header again, .*; --bad-rows 4 allows no further one"):
        reading(BAD, bad_rows=4)
    with pytest.raises(DataError, match="line 3 has 2 fields, the header 3: '1,b'$"):
        reading(BAD)


@pytest.mark.parametrize(
    "rows",
    [
        '1,"a,1\n1,b,1\n',
        '1,"a,1\n1,b,1\n1,c",1\n',
        '1,"a,1\n1,b"x,1\n',
        "1,a,1700000000\n1,b,1700000000000\n",
        "1,\0,1\n",
    ],
)
def test_what_may_have_taken_other_rows_with_it_is_never_left_out(reading, rows):
    """A quote that swallows rows, and units that differ, say nothing of one row alone."""
    with pytest.raises(DataError):
        reading(f"SessionId,ItemId,Time\n1,a,1700000000\n{rows}", bad_rows=100)


def test_bad_rows_of_json_lines_and_several_files_count_together(tmp_path):
    """Those that are shown have their file."""
    for name in "12":
        (tmp_path / name).write_text('{"SessionId": 1, "ItemId": "a"}\nx\n')
    files = [tmp_path / "1", tmp_path / "2"]
    assert f"{tmp_path / '2'}, line 2 is not JSON" in read(files, DataOptions(bad_rows=2)).words
    with pytest.raises(DataError, match="2: line 2 is not JSON.*--bad-rows 1 allows no further one"):
        read(files, DataOptions(bad_rows=1))


def test_duplicates_are_counted_and_kept(reading):
    """They have the session, the item and the time of another, in any order of rows; the same item later is none."""
    rows = "1,a,5\n1,b,5\n1,a,6\n1,a,5\n2,a,5\n1,b,5\n"
    found = reading(f"SessionId,ItemId,Time\n{rows}")
    assert found.sessions == [["a", "b", "a", "b", "a"], ["a"]]
    assert found.record["duplicates"] == 2
    assert "2 duplicates (the session, item and time of another event) kept" in found.words
