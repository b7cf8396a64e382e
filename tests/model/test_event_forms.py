"""The forms that event files come in: packed, headerless, JSON lines, Parquet, in pieces, from a pipe."""

import datetime
import gzip
import io
import os
import subprocess
import sys
import threading
import time

import pytest

from arraylstm import DataError
from arraylstm.data import DataOptions, read, read_sessions

ROWS = "SessionId,ItemId,Time\n1,b,2\n2,x,5\n1,a,1\n"
SESSIONS = [["a", "b"], ["x"]]


@pytest.fixture
def sessions(tmp_path):
    def sessions(content, name="events", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_sessions(path, DataOptions(**options))[0]

    return sessions


@pytest.fixture
def refusal(sessions):
    def refusal(content, **options):
        with pytest.raises(DataError) as caught:
            sessions(content, **options)
        return str(caught.value)

    return refusal


class TestPacked:
    """gzip and zstd, known by content."""

    @pytest.fixture(params=["gzip", "zstd"])
    def pack(self, request):
        if request.param == "gzip":
            return gzip.compress
        return pytest.importorskip("backports.zstd", reason="the extra `data` is not installed").compress

    def test_packed_files_are_read_as_what_is_in_them(self, sessions, pack):
        """Also where several were joined, as logs are."""
        assert sessions(pack(ROWS.encode())) == SESSIONS
        assert sessions(pack(b"a b\n") + pack(b"c d\n")) == [["a", "b"], ["c", "d"]]

    def test_damage_is_refused(self, refusal, pack):
        """Nothing of a file that is cut off, or is no text, is used."""
        packed = pack(os.urandom(300).hex().encode())
        assert "is a damaged or cut off" in refusal(packed[:-9])
        assert "is a damaged or cut off" in refusal(packed[:7] + b"\xff" * 8 + packed[15:])
        assert "line 1 is not UTF-8 text" in refusal(pack(b"\xe9 b\n"))
        assert "packed with bzip2" in refusal(pack(b"BZh91AY&SY"))
        assert "a Parquet file packed with" in refusal(pack(b"PAR1" + bytes(30)), format="table")

    @pytest.mark.parametrize(
        ("content", "module", "what"),
        [(b"\x28\xb5\x2f\xfd\x00", "backports", "packed with zstd"), (b"PAR1\x15", "pyarrow", "a Parquet file")],
    )
    def test_a_reader_that_is_not_installed_is_named(self, refusal, monkeypatch, content, module, what):
        """The message has the command that installs it."""
        monkeypatch.setitem(sys.modules, module, None)
        said = f'is {what}, which needs another package: pip install "arraylstm-serving[data]"'
        assert said in refusal(content)


class TestHeaderless:
    """Tables without a header."""

    MOVIES = '1::1193::5::978302109\n1::661::3::978300760\n2::3 "x::3::9\n'

    def test_columns_are_named_by_their_numbers(self, sessions):
        """The first line is an event; other columns may hold anything."""
        numbers = {"headerless": True, "session_column": "1", "item_column": "3"}
        assert sessions("1,,a\n1,1,b\n2,1,c\n", **numbers) == [["a", "b"], ["c"]]
        clicks = "1,2014-04-07T10:54:09.868Z,b,0\n1,2014-04-07T10:51:09.277Z,a,0\n"
        assert sessions(clicks, **numbers, time_column="2") == [["a", "b"]]

    def test_two_colons_may_part_fields(self, sessions, refusal):
        """As in MovieLens; quotes there are characters like others. A header works too."""
        ratings = {"headerless": True, "session_column": "1", "item_column": "2", "time_column": "4"}
        assert sessions(self.MOVIES, **ratings) == [["661", "1193"], ['3 "x']]
        assert sessions("user::item\n1::a, b\n", session_column="user", item_column="item") == [["a, b"]]
        assert "line 2 has 2 fields, the first row 4: '1::2'" in refusal("1::1::5::9\n1::2\n", **ratings)

    def test_a_delimiter_can_be_given(self, sessions):
        """Any text, and the tab by its name."""
        columns = {"session_column": "u", "item_column": "i"}
        assert sessions("u^i\n1^a,b,c\n", delimiter="^", **columns) == [["a,b,c"]]
        assert sessions("u\ti,j,k,l\n1\ta\n", delimiter="tab", session_column="u", item_column="i,j,k,l") == [["a"]]
        assert sessions("u||i\n1||a|b\n", delimiter="||", **columns) == [["a|b"]]

    @pytest.mark.parametrize(
        ("content", "options", "message"),
        [
            ("7,a\n", {"session_column": "1", "item_column": "2"}, "a number, which names a column with --headerless"),
            ("1,2\n5,6\n", {"session_column": "1", "item_column": "2"}, "--session-column 1 is a number, which"),
            (
                "1,a\n",
                {"session_column": "1", "item_column": "3", "headerless": True},
                "no column '3'; .* are '1', '2'",
            ),
            (
                "1,a\n1\n",
                {"session_column": "1", "item_column": "2", "headerless": True},
                "line 2 has 1 field, the first",
            ),
            (
                "1,\n",
                {"session_column": "1", "item_column": "2", "headerless": True},
                "line 1 has no session or no item",
            ),
            ("a b\n", {"headerless": True, "format": "lines", "session_column": "1", "item_column": "2"}, "describes"),
            ('{"1": 2}\n', {"delimiter": ",", "format": "jsonl"}, "--delimiter describes a table, but --format is"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, sessions, content, options, message):
        """With the place, or the flag."""
        with pytest.raises(DataError, match=message):
            sessions(content, **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"headerless": True}, "headerless needs the numbers of columns"),
            ({"headerless": True, "session_column": "user", "item_column": "2"}, "must be the number of a column"),
            ({"headerless": True, "session_column": "0", "item_column": "2"}, "from 1, with headerless, got '0'"),
            ({"delimiter": ""}, "delimiter must be text without quotes"),
            ({"delimiter": '"'}, "delimiter must be text without quotes"),
        ],
    )
    def test_options_that_name_no_columns_are_refused(self, options, message):
        """Before a file is opened."""
        with pytest.raises(ValueError, match=message):
            DataOptions(**options)


NAMED = {"session_column": "s", "item_column": "i", "time_column": "t"}


class TestJsonLines:
    """An event an object."""

    def test_objects_are_events(self, sessions):
        """Numbers are exact, 5 is "5", keys stand in any order, and blank lines mean nothing."""
        lines = [
            '{"t": 1700000000.123456789, "i": 5, "s": "a"}',
            "",
            '{"s": "a", "i": "5 x", "t": 1700000000.123456788}',
        ]
        assert sessions("\n".join(lines), **NAMED) == [["5 x", "5"]]
        assert sessions('{"SessionId": 1, "ItemId": "é"}\n{"SessionId": "1", "ItemId": "\\u00e9"}') == [["é", "é"]]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"s": 1, "t": 1}', "has no key 'i', but 's', 't'"),
            ('{"s": 1, "i": 2.0, "t": 1}', "has in 'i' a value that is not text or an integer"),
            ('{"s": 1, "i": true, "t": 1}', "has in 'i' a value that is not text or an integer"),
            ('{"s": [1], "i": 1, "t": 1}', "has in 's' a value that is not text or an integer"),
            ('{"s": 1, "i": 1, "t": [1]}', "has in 't' a value that is not a number or text"),
            ('{"s": null, "i": 1, "t": 1}', "has no session or no item, in 's'"),
            ('{"s": 1, "i": 1, "t": null}', "has the time ''"),
            ('{"s": 1, "i": 1, "t": NaN}', "is not JSON: NaN is no number"),
            ('{"s": 1, "i": 1, "i": 2, "t": 1}', "has a key twice"),
            ('{"s": 1, "i": "\\ud800", "t": 1}', "has in 'i' half of a character"),
            ('{"s": 1, "i": 1, "t": 1', "is not JSON: Expecting ',' delimiter at character 25"),
            ("[1]", "is no JSON object"),
            ("[" * 100_000, "is nested too deeply"),
            ('{"s": 1, "i": 1' + "0" * 5000 + "}", "has an integer of 5001 digits"),
        ],
    )
    def test_a_line_that_is_no_event_is_refused_with_its_place(self, refusal, line, message):
        """Nothing is rounded, and nothing made up for what is missing."""
        assert f"line 3 {message}" in refusal(f'{{"s": 1, "i": 1, "t": 1}}\n\n{line}\n', **NAMED)
        assert f"line 1 {message}" in refusal(f"{line}\n", **NAMED, format="jsonl")
        if line[0] == "{":
            assert f"line 1 {message}" in refusal(f"{line}\n", **NAMED)


class TestParquet:
    """Through pyarrow, a batch at a time."""

    @pytest.fixture
    def pack(self):
        pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
        parquet = pytest.importorskip("pyarrow.parquet")

        def pack(sessions, items, times=None):
            columns = {"SessionId": sessions, "ItemId": items} | ({} if times is None else {"Time": times})
            file = io.BytesIO()
            parquet.write_table(pyarrow.table(columns), file, row_group_size=2)
            return file.getvalue()

        return pack

    def test_columns_of_any_type_of_number_or_text_are_read(self, sessions, pack):
        """Categories, timestamps with a zone to the nanosecond, dates, and plain numbers."""
        import pyarrow

        assert sessions(pack([1, 2, 1], pyarrow.array(["b", "x", "a"]).dictionary_encode(), [2, 5, 1])) == SESSIONS
        for kind in (pyarrow.timestamp("ns", "Europe/Paris"), pyarrow.timestamp("us"), pyarrow.float64()):
            assert sessions(pack(["1", "2", "1"], ["b", "x", "a"], pyarrow.array([2, 5, 1]).cast(kind))) == SESSIONS
        days = [datetime.date(2024, 1, day) for day in (2, 5, 1)]
        assert sessions(pack([1, 2, 1], ["b", "x", "a"], days)) == SESSIONS
        assert sessions(pack([1, 1], [7, 8])) == [["7", "8"]]

    def test_what_does_not_fit_is_refused(self, refusal, pack):
        """With the row, the column and its type, or the damage."""
        import pyarrow

        assert "row 2 has no session or no item, in 'ItemId'" in refusal(pack([1, 1], ["a", None]))
        assert "in the column 'ItemId' values of type double" in refusal(pack([1, 1], [1.0, None]))
        assert "has no column 'x'; its columns are 'SessionId'" in refusal(pack([1], ["a"]), session_column="x")
        assert "row 2 has the time ''" in refusal(pack([1, 1], ["a", "b"], [1, None]))
        assert "holds no events" in refusal(pack(pyarrow.array([], "int8"), pyarrow.array([], "string")))
        assert "damaged or cut off Parquet" in refusal(pack([1], ["a"])[:-20])
        assert "--delimiter means nothing" in refusal(pack([1], ["a"]), delimiter=",")
        assert "is a Parquet file, but --format is 'lines'" in refusal(pack([1], ["a"]), format="lines")


class TestSeveral:
    """Files that belong together."""

    def test_files_are_one_log(self, tmp_path):
        """A session may go over files; a folder stands for its files in the order of names, but hidden ones."""
        for name, rows in {"2.csv": "1,a,1\n", "10.csv": "1,b,2\n2,x,5\n", "_SUCCESS": "", ".2.crc": ""}.items():
            (tmp_path / name).write_text(rows and f"SessionId,ItemId,Time\n{rows}")
        for paths in (tmp_path, [tmp_path / "10.csv", tmp_path / "2.csv"]):
            assert read(paths, DataOptions()).sessions == SESSIONS
        untimed = read([tmp_path / "10.csv", tmp_path / "2.csv"], DataOptions(time_column="none"))
        assert untimed.sessions == [["b", "a"], ["x"]]
        assert untimed.record["files"] == [str(tmp_path / "10.csv"), str(tmp_path / "2.csv")]

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ("a b\n", "2: is read as 'lines', but .*1 as 'table'"),
            ("SessionId,ItemId\n1,a\n", "2: has a column for times where .*1 has none, or the other way round"),
            ("SessionId,ItemId,Time\n1,a,1700000000\n", "2: line 2 has the time .* but line 2 of .*1 has '2024-01-01'"),
            ("SessionId,ItemId,Time\n1,a\n", "2: line 2 has 2 fields"),
        ],
    )
    def test_files_that_do_not_belong_together_are_refused(self, tmp_path, second, message):
        """By name, with the one before."""
        (tmp_path / "1").write_text("SessionId,ItemId,Time\n1,a,2024-01-01\n")
        (tmp_path / "2").write_text(second)
        with pytest.raises(DataError, match=message):
            read([tmp_path / "1", tmp_path / "2"], DataOptions())

    def test_no_file_and_one_that_is_given_twice_are_refused(self, tmp_path):
        """An event would count twice."""
        (tmp_path / "1").write_text("a b\n")
        (tmp_path / "link").symlink_to(tmp_path / "1")
        for paths in ([tmp_path], [tmp_path / "link", tmp_path / "1"], [tmp_path / "1"] * 2):
            with pytest.raises(DataError, match="is given twice"):
                read(paths, DataOptions())
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="empty: is a folder without files"):
            read(tmp_path / "empty", DataOptions())
        with pytest.raises(DataError, match="no event file is given"):
            read([], DataOptions())


def test_the_standard_input_is_a_file_like_others():
    """Packed too; it is not closed."""
    program = (
        "import sys; from arraylstm.data import *; print(read_sessions('-', DataOptions()), sys.stdin.buffer.closed)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=gzip.compress(b"a b\n"), capture_output=True, check=False)
    assert done.stdout.decode() == "([['a', 'b']], 'lines') False\n", done.stderr


def test_a_closed_standard_input_is_refused(monkeypatch):
    """As programs without a console have it."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="-: the standard input is closed"):
        read("-", DataOptions())


def test_a_slow_pipe_is_known_by_its_content(tmp_path):
    """Its first bytes may come one by one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write():
        with pipe.open("wb", buffering=0) as file:
            for byte in gzip.compress(b"a b\n"):
                file.write(bytes([byte]))
                time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    assert read(pipe, DataOptions()).sessions == [["a", "b"]]
    writer.join()
