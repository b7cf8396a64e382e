"""Event files as programs write them: read as they are meant, or refused with the line, never misread in silence."""

import bz2
import gzip
import re

import pytest

from arraylstm import DataError
from arraylstm.data import DataOptions, read_sessions

TABLE = "SessionId,ItemId,Time\n"


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "events"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_sessions(path, DataOptions(**options))[0]

    return read


@pytest.fixture
def refusal(read):
    def refusal(content, **options):
        with pytest.raises(DataError) as caught:
            read(content, **options)
        return str(caught.value)

    return refusal


@pytest.mark.parametrize(
    ("content", "kind", "seen"),
    [
        ("196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "separated by tabs", "'196', '242', '3', '881250949'"),
        ("user\titem\nann\thome\n", "separated by tabs", "'user', 'item'"),
        ("a b c\nann\thome page\n", "separated by tabs", "'ann', 'home page'"),
        (
            "1::Toy Story (1995)::Comedy\n2::Heat (1995)::Crime\n",
            "separated by '::'",
            "'1', 'Toy Story (1995)', 'Comedy'",
        ),
        ("1::1193::5::978300760\n", "separated by '::'", "'1', '1193', '5', '978300760'"),
        ("user,page\nann,home page\nben,the cart\n", "separated by commas", "'user', 'page'"),
        ("user, page\nann, home\n", "separated by commas", "'user', 'page'"),
        ("sessionid,itemid,time\n1,a,1\n", "separated by commas", "'sessionid', 'itemid', 'time'"),
        ("\n\nuser;page\nann;home\n", "separated by semicolons", "'user', 'page'"),
        ("sep=;\nSessionId;ItemId\n1;a\n", "separated by semicolons", "'sep=', ''"),
        ("ann|home|1\nben|cart|2\n", "separated by '|'", "'ann', 'home', '1'"),
        ("5,22,11\n9,26\n5\n", "separated by commas", "'5', '22', '11'"),
        ('"ann","home"\n"ben","cart"\n', "separated by commas", "'ann', 'home'"),
        ('"log in" "log out"\n"log in"\n', "items in quotes", 'line 1 is \'"log in" "log out"\''),
        ('{"session": "a", "item": "p1"}\n', "JSON", "'session', 'item'"),
        ("[\n{\n", "JSON", "line 1 is '['"),
        ('[["a", "b"],\n["c"]]\n', "JSON", "line 1 is"),
        ("user_id:token item_id:token\n1 7\n", "a table", "'user_id:token', 'item_id:token'"),
        ("SessionId ItemId Time\n1 a 5\n", "a table", "'SessionId', 'ItemId', 'Time'"),
        ("user item rating\n1 7 5\n1 8 3\n", "separated by blanks", "'user', 'item', 'rating'"),
        ("196 242 3 881250949\n186 302 3 891717742\n", "with times", "'196', '242', '3', '881250949'"),
        ("2024-01-01 10:00:00 INFO start\n2024-01-01 10:00:01 WARN disk full\n", "with times", "'2024-01-01'"),
        ("ann: home cart\nben: home\n", "a name with a colon", "line 1 is 'ann: home cart'"),
        ("ann\x01home\x01cart\n", "separated by control characters", "'ann', 'home', 'cart'"),
        ("a b\n\x1a\n", "separated by control characters", "line 2 is '\\x1a'"),
        ("ann\x1fhome\n", "separated by control characters", "'ann', 'home'"),
        ("[1 2 3]\n[4 5]\n", "lists in brackets", "line 1 is '[1 2 3]'"),
        ("(a b)\nc d\n", "lists in brackets", "line 1 is '(a b)'"),
        ("user=ann page=home\nuser=ben page=cart\n", "name=value", "line 1 is 'user=ann page=home'"),
        ("<?xml version='1.0'?>\n<log>\n", "a markup language", "line 1 is"),
    ],
)
def test_what_looks_like_another_form_is_refused_with_what_is_seen_and_the_flags(refusal, read, content, kind, seen):
    """No separator, brace or header becomes an item unasked; asked for, the lines are taken as they stand."""
    message = refusal(content)
    assert kind in message
    assert seen in message
    assert "give --format lines if" in message
    assert kind == "JSON" or "--session-column and --item-column" in message
    assert read(content, format="lines") == [
        re.split("[ \t]+", line) for line in content.split("\n") if line.strip(" ")
    ]


@pytest.mark.parametrize(
    "comment", ["# exported on Monday", "#SessionId ItemId", "% home", "// home", "-- home cart", "; home"]
)
def test_comments_are_no_items(refusal, comment):
    """Wherever one stands, its line is named."""
    assert f"line 3 looks like a comment: {comment!r}" in refusal(f"home cart\n\n{comment}\nhome\n")


@pytest.mark.parametrize(
    "content",
    [
        "5 22 11 9\n22 5\n7\n",
        "login.ok search results\nlogin.failed login.ok\n",
        "GET:/a?x=1,2 POST:/b\nGET:/a\nGET:/c\n",
        "well , that is so .\nyes , it is , he said\n",
        "Hello, dear world\nbut it is not, he said, so\n",
        "std::sort main\nmain exit\nexit main\n",
        "1005001234 2005001234\n1005001234 900000001\n",
        "New\u00a0York Paris\nParis\n",
        "login login\nlogout 5\n",
        "[CLS] a [SEP]\n[CLS] b\n",
    ],
)
def test_sessions_a_line_are_taken_as_they_are(read, content):
    """Punctuation in items, words beside it, and ids as large as times are no other form; only blanks part items."""
    assert read(content) == [line.split(" ") for line in content.splitlines()]


def test_lines_may_end_in_carriage_returns_alone(read, refusal):
    """A file of old Mac lines has its lines; a carriage return amid lines is refused."""
    assert read("5 22\r9\r") == [["5", "22"], ["9"]]
    assert read("SessionId,ItemId\r1,a\r1,b") == [["a", "b"]]
    assert "line 2 holds a carriage return that ends no line: '5 22\\r9'" in refusal("7\n5 22\r9\n")


def test_a_gzip_file_is_read_by_its_content(read, refusal):
    """Its name does not matter; one that is cut off or damaged is refused."""
    packed = gzip.compress(b"\xef\xbb\xbfSessionId,ItemId\r\n1,a\r\n")
    assert read(packed) == [["a"]]
    for damaged in (packed[:-9], packed[:14] + b"\xff\xff\xff" + packed[17:]):
        assert "is a damaged or cut off gzip file" in refusal(damaged)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SessionId\tItemId\n1\ta\n".encode("utf-16"), "is not UTF-8 text but UTF-16"),
        ("SessionId\tItemId\n1\ta\n".encode("utf-32"), "is not UTF-8 text but UTF-32"),
        ("7\na b\n".encode("utf-16-le"), "line 1 holds a NUL byte, at offset 1 of the text"),
        (b"a b\nc \0\n", "line 2 holds a NUL byte, at offset 6 of the text"),
        (b"a\n" * 9000 + b"caf\xe9\n", "line 9001 is not UTF-8 text: byte 0xe9 at offset 18003 .* 'é' in Windows-1252"),
        (b"\xef\xbb\xbfa\n\xff", "line 2 is not UTF-8 text: byte 0xff at offset 5"),
        ("a b\n\ufeffc d\n".encode(), "line 2 holds a second byte order mark"),
        (bz2.compress(b"a b\n"), "packed with bzip2"),
        (b"PK\x03\x04rest", "a zip archive or a spreadsheet"),
    ],
)
def test_what_is_no_utf8_text_is_refused_with_its_place_in_the_file(read, content, message):
    """Line and offset are the file's, however it is read in pieces."""
    with pytest.raises(DataError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,Shoes, red,5\n", "line 2 has 4 fields, the header 3: '1,Shoes, red,5'"),
        ("1,a,1,\n", "line 2 has 4 fields"),
        ("\n\n1,a\n", "line 4 has 2 fields, the header 3: '1,a'"),
        ('1,"a\nb",1\n\n1,c\n', "line 5 has 2 fields"),
        ('1,"Heroes" (live),1\n', "line 2 cannot be read as a row: something stands after a closing quote.*Heroes"),
        ('1,a,1\n1,"b,1\n1,c,1\n', "line 3 cannot be read as a row: a quote is opened and never closed: '1,\"b,1'"),
        ('1,"a,1\n1,b,1\n1,c",1\n', "line 2 opens a quote that is closed lines later"),
        ("1,a,1\rx\n", "line 2 cannot be read as a row: a carriage return stands inside"),
        ("1,a,1\nSessionId,ItemId,Time\n", "line 3 is the header again"),
        ("# from the shop, 2024,\n", "line 2 looks like a comment"),
        ("----,----,----\n", "line 2 looks like a ruler"),
        (",a,1\n", "line 2 has no session or no item, in 'SessionId'"),
        ("NULL,a,1\n", "line 2 has no session or no item, in 'SessionId'"),
        ("1, ,1\n", "line 2 has no session or no item, in 'ItemId'"),
        ("\n", "holds no events, only a header"),
        (f"1,{'x' * 200_000},1\n", "line 2 cannot be read as a row: a field is longer"),
    ],
)
def test_a_row_that_is_no_event_is_refused_with_its_line(read, rows, message):
    """Nothing is cut off, filled in or joined; the line is that of the file, blank and quoted lines included."""
    with pytest.raises(DataError, match=message):
        read(TABLE + rows)


def test_a_column_that_stands_twice_is_refused(refusal):
    """Which one is meant is not guessed."""
    assert "has the column 'ItemId' more than once" in refusal("SessionId,ItemId,ItemId\n1,a,b\n")
    assert "has the column 'x' more than once" in refusal("u,p,x, x\n1,a,2,3\n", session_column="u", item_column="p")


def test_blanks_around_values_are_no_part_of_them(read):
    """A session is one with and without them; quoted line ends and separators stay."""
    rows = '\nSessionId ; ItemId\r\n1 ; a \r\n\r\n"1";" b; c\nd "\r\n'
    assert read(rows) == [["a", "b; c\nd"]]


class TestTimes:
    """The column that orders a session's events."""

    @pytest.mark.parametrize(
        "times",
        [
            ["2024-01-01", "2024-01-02", "2024-10-01"],
            ["2024-01-01 09:59", "2024-01-01T10:00", "2024-01-01 10:00:00.5", "2024-01-01t10:00:01"],
            ["2014-04-07T10:51:09.277Z", "2014-04-07T10:54:09.868Z", "2014-04-07T11:00:00.1Z"],
            [
                "2024-01-01T12:00:00+02:00",
                "2024-01-01T10:30:00Z",
                "2024-01-01 10:45:00 UTC",
                "2024-01-01T09:50:00-0100",
            ],
            ["2024-01-01 10:00:00.123456788", "2024-01-01 10:00:00.123456789", "2024-01-01 10:00:00.2"],
            ["9", "1e1", "10.5", "1.1E+1", "12"],
            ["1700000000.123456788", "1700000000.123456789"],
            ["881250949", "1700000000"],
            ["1700000000000", "1700000000001"],
            ["0", "1", "900000000"],
            ["-5", "-4.5", "0", "+3"],
            ["1850-01-01", "1999-12-31"],
        ],
    )
    def test_numbers_and_iso_8601_order_exactly(self, read, times):
        """Backwards in the file, the events come out in the order of their times."""
        rows = [f'1,item{place},"{time}"\n' for place, time in enumerate(times)]
        assert read(TABLE + "".join(reversed(rows))) == [[f"item{place}" for place in range(len(times))]]

    @pytest.mark.parametrize(
        "time",
        ["", "noon", "31/12/2023", "12/31/2023", "01.02.2024", "2024/01/31", "17:41:44", "2024-02-30", "2024-13-01"]
        + ["0024-01-01", "9999-12-31", "-0044-03-15", "20240-01-01", "2024-01-01 25:00", "inf", "1_000", "1,5", "0x1F"]
        + ["1e99", "9" * 25, "9" * 5000, "2024-01-01 10:00:00 CET", "١٢"],
    )
    def test_what_is_no_time_is_refused_with_the_flag(self, refusal, time):
        """Nothing that could be read in two ways is guessed."""
        message = refusal(f'{TABLE}1,a,"{time}"\n')
        assert f"line 2 has the time {time!r}, " in message
        assert "give --time-column another column, or none" in message

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("1700000000", "1700000000123"),
            ("1700000000123", "1700000000123456"),
            ("2024-01-01", "1700000000"),
            ("2024-01-01", "2024-01-01 10:00:00"),
            ("2024-01-01 10:00:00", "2024-01-01 10:00:00Z"),
            ("20240101", "20240101100000"),
            ("1700000000", "-1"),
            ("0", "1700000000"),
        ],
    )
    def test_times_written_in_two_ways_are_refused(self, refusal, one, other):
        """Seconds among milliseconds would put one session's events in no order at all."""
        message = refusal(f"{TABLE}1,a,{one}\n\n2,b,{other}\n")
        assert "must all be written in one way" in message
        assert f"line 4 has the time {other!r}" in message or f"line 2 has the time {one!r}" in message
        assert one in message
        assert other in message

    ROWS = "BlockId,EventId,Time\n1,E5,235959\n1,E22,000001\n"

    def test_the_default_column_goes_with_the_other_defaults_alone(self, read):
        """A column that happens to be called Time orders nothing unasked."""
        assert read(self.ROWS, session_column="BlockId", item_column="EventId") == [["E5", "E22"]]
        assert read("user,ItemId,Time\n1,a,x\n", session_column="user") == [["a"]]
        named = {"session_column": "SessionId", "item_column": "ItemId"}  # as if they were not named
        assert read(f"{TABLE}1,a,2\n1,b,1\n", **named) == [["b", "a"]]

    def test_none_keeps_the_order_of_the_file(self, read, refusal):
        """What Time holds does not matter then."""
        assert read(f"{TABLE}1,b,x\n1,a,y\n", time_column="none") == [["b", "a"]]
        for name in ("TIME", "Timestamp", "date"):
            message = refusal(f"SessionId,ItemId,{name}\n1,a,2\n1,b,1\n")
            assert f"give --time-column {name}, or --time-column none" in message
            assert read(f"SessionId,ItemId,{name}\n1,a,2\n1,b,1\n", time_column="none") == [["a", "b"]]

    def test_the_reading_is_said(self, tmp_path):
        """Whether and by what events were ordered stands in the report."""
        path = tmp_path / "events.csv"
        path.write_text(f"{TABLE}1,a,1\n")
        assert read_sessions(path, DataOptions())[1] == "a table, ordered by 'Time'"
        assert read_sessions(path, DataOptions(time_column="none"))[1] == "a table, in the file's order"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_column": ""}, "time_column must be the name of a column, got ''; 'none' keeps the file's order"),
        ({"session_column": " "}, "session_column must be the name of a column, got ' '"),
        ({"session_column": "a", "item_column": "a"}, "must differ, got 'a' twice"),
        ({"session_column": "ItemId"}, "must differ, got 'ItemId' twice"),
    ],
)
def test_options_that_name_no_columns_are_refused(options, message):
    """Each says what it got."""
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)


def test_messages_name_the_flags_of_the_program(tmp_path):
    """A program whose flags for a file begin otherwise says so in its messages."""
    path = tmp_path / "events.csv"
    for content, flag in (
        ("user,page\n1,a\n", "--held-out-format lines"),
        ("SessionId,ItemId,time\n1,a,1\n", "time-column none"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=f"--held-out-session-column|{flag}"):
            read_sessions(path, DataOptions(), "--held-out-")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "lines", "item_column": "page"}, "--item-column describes a table, but --format is 'lines'"),
        ({"format": "text", "time_column": "none"}, "--time-column describes a table, but --format is 'text'"),
        ({"text_length": 5}, "--text-length describes text: give --format text too"),
    ],
)
def test_options_that_would_be_ignored_are_refused(refusal, options, message):
    """Each says what it does not go with."""
    assert message in refusal("a b\n", **options)
