"""The replay programs that run in a terminal, as the tests of their common contract see them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "export" / "runtimes"
ONNX_FORMS = ["step.onnx", "sequence.onnx", "step.onnx, item by item"]
FORMS = {
    "node": ONNX_FORMS,
    "libtorch": ["TorchScript step", "TorchScript forward", "TorchScript step, item by item"],
    "openvino": ONNX_FORMS,
    "reference": ONNX_FORMS,
}
LINE = re.compile(r"(?P<form>.+): 2 vectors, largest difference (?P<difference>\S+) in (?P<where>.+)")


@dataclass(frozen=True)
class Program:
    """A runtime's replay program: calling it runs it, and returns the finished process."""

    name: str
    command: tuple
    folder: Path = SOURCES

    @property
    def forms(self):
        return FORMS[self.name]

    @property
    def model_file(self):
        return "model.torchscript.pt" if self.name == "libtorch" else "step.onnx"

    def __call__(self, *arguments):
        return run(*self.command, *arguments, folder=self.folder)


def run(*command, folder=None):
    command = [*map(str, command)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def read_report(finished):
    """Return what a program found in each form of the model, (difference, where) by form, and its other lines."""
    *lines, last = finished.stdout.splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    found = {match["form"]: (float(match["difference"]), match["where"]) for match in matches if match}
    assert last == f"largest difference {max(difference for difference, _ in found.values()):.1e}"
    return found, [line for line, match in zip(lines, matches, strict=True) if not match]


def assert_bad_input(finished, *words):
    """Assert that a program says in one sentence, which holds the words, what is wrong with what it was given."""
    assert (finished.returncode, finished.stdout) == (2, "")
    (sentence,) = finished.stderr.splitlines()
    for word in words:
        assert word in sentence
