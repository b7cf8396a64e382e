"""Disks that a test fills, or lets lose power, stand still or become read-only. They need root."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

EXT4_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: from now on the file system does nothing more."""
WITHOUT_FLUSH = struct.pack("I", 2)
"""EXT4_GOING_FLAGS_NOLOGFLUSH: what is in memory alone is lost, as without power."""


def prepare(*command: str | Path) -> str:
    """Run a program of the system before a trial; skip the test if it is not allowed or not there."""
    if os.geteuid():
        pytest.skip(f"{command[0]} needs root")
    try:
        return run(*command)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(map(str, command))}: {error.stderr.strip()}")


def run(*command: str | Path) -> str:
    """Run a program of the system in a trial, where it must work."""
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


class SmallDisk:
    """A file system in memory that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave no room."""
        with (self.path / "ballast").open("wb", buffering=0) as ballast:
            while self._takes(ballast):
                pass

    @staticmethod
    def _takes(ballast: IO[bytes]) -> bool:
        try:
            return bool(ballast.write(bytes(1 << 12)))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return False
            raise

    def free(self) -> None:
        """Make room again."""
        (self.path / "ballast").unlink()


@contextmanager
def small_disk(path: Path, megabytes: int = 24) -> Iterator[SmallDisk]:
    """Mount a small disk."""
    path.mkdir()
    prepare("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path)
    try:
        yield SmallDisk(path)
    finally:
        run("umount", "--lazy", path)


class Disk:
    """An ext4 file system on a disk of its own."""

    def __init__(self, path: Path, image: Path) -> None:
        self.path = path
        self._image = image
        self._mount(prepare)

    def lose_power(self) -> None:
        """Lose what has not reached the disk; all that is written from now on fails."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_SHUTDOWN, WITHOUT_FLUSH)
        finally:
            os.close(folder)

    def become_read_only(self) -> None:
        """Do what ext4 does when it finds that it is damaged."""
        device = run("findmnt", "-no", "SOURCE", self.path).removeprefix("/dev/")
        trigger = Path("/sys/fs/ext4", device, "trigger_fs_error")
        if not trigger.exists():
            pytest.skip(f"this kernel has no {trigger}")
        trigger.write_text("1")

    def freeze(self) -> None:
        """Let all that writes wait."""
        run("fsfreeze", "--freeze", self.path)

    def thaw(self) -> None:
        """Let it go on."""
        run("fsfreeze", "--unfreeze", self.path)

    def mount_again(self) -> None:
        """Check and mount the disk, as after a restart of the machine; nobody has a file open on it."""
        run("umount", self.path)
        subprocess.run(["e2fsck", "-fy", self._image], check=False, capture_output=True)
        self._mount(run)

    def _mount(self, how: Callable[..., str]) -> None:
        how("mount", "-o", "loop,errors=remount-ro", self._image, self.path)


@contextmanager
def disk(folder: Path, megabytes: int = 64) -> Iterator[Disk]:
    """Make and mount a disk."""
    image, path = folder / "disk.img", folder / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    prepare("mkfs.ext4", "-q", image)
    made = Disk(path, image)
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
