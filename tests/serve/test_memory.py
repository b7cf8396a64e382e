"""What memory a server may take: what is asked for beside what the machine has, and what is not collected again."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from arraylstm_serve import Bundle, Settings
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.errors import StartupError
from arraylstm_serve.server import memory
from arraylstm_serve.server import process as serving
from arraylstm_serve.server.process import allocate

from .commands import run


def test_settled_memory_is_not_collected_again() -> None:
    """What was loaded before serving is frozen, and the youngest generation is collected seldom."""
    thresholds = gc.get_threshold()
    try:
        serving.settle_memory()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == serving.YOUNG_OBJECTS
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


SMALL = dict.fromkeys(
    (
        "max_sessions",
        "max_pending",
        "max_batch",
        "max_answer_bytes",
        "max_connections",
        "max_body_bytes",
        "max_unread_bytes",
    ),
    1,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_sessions", 20_000),
        ("max_pending", 50_000),
        ("max_batch", 4096),
        ("max_answer_bytes", 2**22),
        ("max_connections", 100),
        ("max_body_bytes", 2**22),
        ("max_unread_bytes", 2**22),
    ],
)
def test_a_bound_beyond_the_control_groups_memory_is_a_fault(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    """Bounds above the control group's memory are refused with the flag to lower and its value; no limit is none."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "absent", limit))
    bundle, settings = Bundle.load(bundle_path), Settings(**SMALL | {name: value})
    for text in ("max\n", str(2**40)):
        limit.write_text(text)
        allocate(bundle, settings)
    limit.write_text(f"{2**22}\n")
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(StartupError, match=f"for {flag} {value}, but there are 4.2 MB; lower {flag}"):
        allocate(bundle, settings)


def test_rows_on_a_gpu_take_no_memory_of_the_host(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a GPU is found, under --device auto too, sessions may be more than the host could hold."""
    bundle = Bundle.load(bundle_path)
    monkeypatch.setattr(serving, "memory_limit", lambda: 22_000_000)
    settings = Settings(**SMALL | {"max_sessions": 14_000})
    with pytest.raises(StartupError, match="lower --max-sessions"):
        allocate(bundle, settings)
    on_gpu = open_engine(bundle, Settings(device="cpu"), 1)
    monkeypatch.setattr(serving, "open_accelerator", lambda *_: on_gpu)
    assert allocate(bundle, settings) is on_gpu


@pytest.mark.parametrize("flag", ["--max-sessions", "--max-pending", "--max-answer-bytes"])
def test_too_much_for_the_machine_is_a_clear_fault(bundle_path: Path, flag: str) -> None:
    """A bound that the machine's memory cannot meet is told with its value and the flag to lower."""
    done = run(str(bundle_path), "--port", "0", flag, str(10**12))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"for {flag} {10**12}, but there are" in done.stderr
    assert f"lower {flag}." in done.stderr
