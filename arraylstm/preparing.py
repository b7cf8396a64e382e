"""From event files to what a training takes: parts of sessions as ids, and a record of how they came about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arraylstm.cli_options import ItemOptions, SplitOptions
from arraylstm.data import DataOptions, Reading, Sessions, read, split, split_by_time
from arraylstm.errors import DataError
from arraylstm.eventfiles.source import STDIN
from arraylstm.eventlog import generate_sessions
from arraylstm.vocabulary import Vocabulary

PARTS = ("train", "validation", "held out")
Ids = list[list[int]]


@dataclass(frozen=True)
class Prepared:
    """Sessions that are ready to be learned from.

    Attributes:
        vocabulary: the items of the training part.
        parts: the ids of the training, validation and held-out sessions.
        words: what was read and how, what was done to it, and how it was parted, a line each.
        record: the same as values for JSON, which a checkpoint keeps.
    """

    vocabulary: Vocabulary
    parts: list[Ids]
    words: list[str]
    record: dict[str, Any]


def prepare(
    data: Sequence[Path], reading: DataOptions, items: ItemOptions, held_out: SplitOptions, seed: int
) -> Prepared:
    """Read the files, part the sessions, and make the vocabulary from the training part alone.

    Events of the other parts whose item the training part lacks are left out, unless an item stands for unknown ones.

    Args:
        data: event files; without one, a log is generated.
        reading: how to read them, and those of the other parts.
        items: which items there are, and how many sessions to generate.
        held_out: which sessions are kept from training.
        seed: of the generated log and of a random split.

    Raises:
        DataError: as for `read` and `split`, or sessions without times are to be split by time.
        ValueError: options that would have no effect, or the standard input is to be read twice.
    """
    _check(data, reading, held_out)
    whole = read(data, reading) if data else _generated(items.generated_sessions, seed)
    train, *rest = _split(whole, held_out, seed)
    files = {name: read(path, reading) for name, path in held_out.files.items()}
    others = [files[name].sessions if name in files else rest.pop(0) for name in ("validation", "test")]
    vocabulary = Vocabulary.from_sessions(train, items.min_count)
    known = [_known(part, vocabulary) for part in others]
    left_out = sum(map(_events, others)) - sum(map(_events, known))
    parts = [[vocabulary.encode(session) for session in part] for part in (train, *known)]
    said = {"data": whole.record, **{name: file.record for name, file in files.items()}}
    record = said | _parting(held_out, seed, parts, left_out, items.min_count)
    words = [_in_words(whole, parts, vocabulary, left_out), *_files_in_words(files), *_split_in_words(held_out, seed)]
    return Prepared(vocabulary, parts, words, record)


def _check(data: Sequence[Path], reading: DataOptions, held_out: SplitOptions) -> None:
    if not data:
        for name in reading.changed():
            raise ValueError(f"--{name.replace('_', '-')} describes an event file: give one, or leave it out")
    if [*data, *held_out.files.values()].count(STDIN) > 1:
        raise ValueError("- is the standard input, which can be read once: give files for the other parts")


def _generated(count: int, seed: int) -> Reading:
    sessions = generate_sessions(count, seed)
    return Reading(sessions, None, "", {"files": [], "generated": count, "seed": seed})


def _split(whole: Reading, held_out: SplitOptions, seed: int) -> list[Sessions]:
    if held_out.split == "random":
        return split(whole.sessions, held_out.shares, seed)
    if whole.ends is None:
        raise DataError(
            f"{whole.source or 'the generated log'}: has no times to split by: give --time-column, --split random, or "
            "files for --validation and --test"
        )
    return split_by_time(whole.sessions, whole.ends, held_out.shares)


def _known(sessions: Sessions, vocabulary: Vocabulary) -> Sessions:
    if vocabulary.unknown is not None:
        return sessions
    return [[item for item in session if item in vocabulary] for session in sessions]


def _events(sessions: Sequence[Sequence[object]]) -> int:
    return sum(map(len, sessions))


def _parting(held_out: SplitOptions, seed: int, parts: list[Ids], left_out: int, min_count: int) -> dict[str, Any]:
    """Return how the sessions were parted, as values for JSON."""
    return {
        "split": {
            "by": held_out.split if held_out.shares else "files",
            "seed": seed if held_out.shares and held_out.split == "random" else None,
            "shares": {name: share for name, share in held_out.given.items() if not isinstance(share, Path)},
            "sessions": dict(zip(("train", "validation", "test"), map(len, parts))),
        },
        "min_count": min_count,
        "left_out": left_out,
    }


def _in_words(whole: Reading, parts: list[Ids], vocabulary: Vocabulary, left_out: int) -> str:
    source = f"{whole.source}, read as {whole.words}" if whole.record["files"] else "Generated log"
    sizes = ", ".join(f"{len(part)} {name}" for part, name in zip(parts, PARTS))
    events = sum(map(_events, parts))
    lacking = f"; {left_out} events left out, whose items the training part lacks" if left_out else ""
    return f"{source}: {sum(map(len, parts))} sessions ({sizes}), {events} events, {len(vocabulary)} items{lacking}"


def _files_in_words(files: dict[str, Reading]) -> Iterator[str]:
    for name, file in files.items():
        yield f"--{name} {file.source}, read as {file.words}"


def _split_in_words(held_out: SplitOptions, seed: int) -> Iterator[str]:
    if held_out.shares:
        how = f"at random, seed {seed}" if held_out.split == "random" else "by the time of their last event"
        yield f"Sessions split {how}"
