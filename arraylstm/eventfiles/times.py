"""The times of a table's column as keys that sort exactly. All times of a column must be written in one way."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from arraylstm.errors import DataError

Key = int | Decimal | Fraction
"""What times of one column sort by: numbers as they are, ISO 8601 in nanoseconds since 1970."""

YEARS = range(1000, 3000)
LARGEST = 10**20
NO_TIME = "none"
_LONGEST = 60
_NANO = 9  # digits
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt ](?P<clock>\d\d:\d\d(:\d\d)?)([.,](?P<fraction>\d+))?"
    r" ?(?P<zone>[Zz]|UTC|GMT|[+-]\d\d(:?\d\d)?)?",
    re.ASCII,
)
_UNITS: dict[str, tuple[int, int]] = {
    "seconds since 1970": (8 * 10**8, 5 * 10**9),
    "milliseconds since 1970": (8 * 10**11, 5 * 10**12),
    "microseconds since 1970": (8 * 10**14, 5 * 10**15),
    "nanoseconds since 1970": (8 * 10**17, 5 * 10**18),
    "dates as YYYYMMDD": (19_000_101, 21_001_231),
    "times as YYYYMMDDhhmmss": (19_000_101_000_000, 21_001_231_235_959),
}
_NUMBER_ABOVE_0, _NUMBER_BELOW = "a number", "a number not above 0"
_ISO_WAYS = _DAY, _ZONED, _LOCAL = "a date alone", "with a zone", "without a zone"
_PER_SECOND: dict[str, int] = dict.fromkeys(_ISO_WAYS, 10**_NANO) | {
    name: 10 ** (3 * power) for power, name in enumerate(_UNITS) if name.endswith("1970")
}
_NUMBERS = {*_UNITS, _NUMBER_ABOVE_0, _NUMBER_BELOW}
_READ = (
    "times are numbers, such as seconds since 1970, or ISO 8601, such as 2024-01-31, 2024-01-31 10:00:00.5 "
    "or 2024-01-31T10:00:00+01:00"
)


class UnreadableTimeError(DataError):
    """A text is no time.

    Attributes:
        fault: what is wrong, with the place.
        advice: what to do.
    """

    def __init__(self, fault: str, advice: str) -> None:
        super().__init__(fault + advice)
        self.fault, self.advice = fault, advice


class TimeColumn:
    """Reads the times of one column, and refuses one that is written in another way than those before it.

    Args:
        flag: the flag that names the column.
    """

    def __init__(self, flag: str) -> None:
        self._advice = f"give {flag} another column, or {NO_TIME} to keep the file's order"
        self._seen: dict[str, tuple[str, str, str]] = {}
        self.file = ""
        """The file that is read, where there are several."""

    def read(self, text: str, place: str) -> Key:
        """Return the key that a time sorts by among those of its column.

        Args:
            text: what stands in the column.
            place: where, as messages say it: `line 5`.

        Raises:
            UnreadableTimeError: the text is no time.
            DataError: it is not written as the others of the column are.
        """
        try:
            way, key = _parse(text)
        except ValueError as error:
            raise UnreadableTimeError(f"{place} has the time {text!r}, {error}", f"; {_READ}; {self._advice}") from None
        if way not in self._seen:
            for other in self._seen:
                if not {way, other} & {_NUMBER_ABOVE_0, _NUMBER_BELOW} or not {way, other} <= _NUMBERS:
                    raise DataError(self._two_ways(way, (place, text, self.file), other))
            self._seen[way] = (place, text, self.file)
        return key

    def check(self) -> None:
        """Raise DataError if zeros or negative numbers stand among times since 1970 alone, as for a missing time."""
        if _NUMBER_BELOW in self._seen and _NUMBER_ABOVE_0 not in self._seen and len(self._seen) > 1:
            other, one = list(self._seen)[:2]
            raise DataError(self._two_ways(one, self._seen[one], other))

    def keys_per_second(self) -> int:
        """Return what keys that are a second apart differ by.

        Raises:
            DataError: what the numbers count is not known.
        """
        for way, (place, text, file) in self._seen.items():
            if way not in _PER_SECOND:
                raise DataError(
                    f"{self._where(place, file)} has the time {text!r} ({way}), which says no distance "
                    "in seconds: gaps need ISO 8601 or numbers since 1970"
                )
        return _PER_SECOND[next(iter(self._seen))]

    def _two_ways(self, way: str, at: tuple[str, str, str], other: str) -> str:
        (place, text, file), (earlier, example, before) = at, self._seen[other]
        return (
            f"{self._where(place, file)} has the time {text!r} ({way}), but {self._where(earlier, before)} has "
            f"{example!r} ({other}): the times of a column must all be written in one way; {self._advice}"
        )

    def _where(self, place: str, file: str) -> str:
        return place if file == self.file else f"{place} of {file}"


def unit(number: int | Decimal) -> str:
    """Return what a number that is a time probably counts: a key of `_UNITS`, or that it is any number."""
    for name, (low, high) in _UNITS.items():
        if low <= number < high:
            return name
    return _NUMBER_ABOVE_0 if number > 0 else _NUMBER_BELOW


def looks_like_a_time(text: str) -> bool:
    """Return whether an item is written as a point in time: a date, or a number that counts since 1970."""
    if _DATE.match(text):
        return True
    return text.isascii() and text.isdigit() and unit(int(text[:30])).endswith("1970")


def _parse(text: str) -> tuple[str, Key]:
    """Return the way a time is written in, and its key; raises ValueError with the end of a message."""
    if len(text) > _LONGEST:
        raise ValueError("which is longer than a time")
    if _NUMBER.fullmatch(text):
        number: int | Decimal = int(text) if text.lstrip("+-").isdigit() else Decimal(text)
        if not -LARGEST < number < LARGEST:
            raise ValueError(f"which is beyond any time: numbers must be below {LARGEST:.0e}")
        return unit(number), number
    if _DATE.fullmatch(text):
        return _DAY, _seconds(text) * 10**_NANO
    found = _ISO.fullmatch(text)
    if not found:
        raise ValueError("which cannot be read")
    zone = found["zone"]
    seconds = _seconds(f"{found['date']}T{found['clock']}{_offset(zone) if zone else ''}")
    return (_ZONED if zone else _LOCAL), seconds * 10**_NANO + (
        _nanoseconds(found["fraction"]) if found["fraction"] else 0
    )


def _nanoseconds(digits: str) -> int | Fraction:
    """Return the nanoseconds of a fraction of a second, exactly."""
    exact = Fraction(int(digits) * 10**_NANO, 10 ** len(digits))
    return exact.numerator if exact.denominator == 1 else exact


def _offset(zone: str) -> str:
    return "+00:00" if zone[0] not in "+-" else zone


def _seconds(text: str) -> int:
    """Return the seconds since 1970 of an ISO 8601 time; one without a zone is taken as UTC, which keeps the order."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"which does not exist: {error}") from None
    if time.year not in YEARS:
        raise ValueError(f"whose year is not from {YEARS.start} to {YEARS.stop - 1}")
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400 + since.seconds
