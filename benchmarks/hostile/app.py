"""Attack arraylstm-serve in every way that is listed, and show what another client sees and what the server uses.

    python benchmarks/edge.py                             # about ten minutes
    python benchmarks/edge.py --only churn --only walks --seconds 20
    python benchmarks/edge.py --markdown docs/edge.md     # writes the page of the documentation

The status is 1 if the victim saw an error, or a server died. Times are shown and never judged. It needs Linux, openssl,
and two cores with nothing else to do.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import App, Parameter
from hostile import table
from hostile.catalogue import ATTACKS
from hostile.cores import cores, stay_on
from hostile.processes import TrialError
from hostile.registry import Attack
from hostile.result import Result
from hostile.serving import NotStartedError
from hostile.trial import Plan, trial

app = App(name="edge", help=__doc__, result_action="return_value")

FAULTY, NOT_RUN = 1, 2
_NARROW = {"num_items": 1000, "hidden_size": 128, "k": 4, "embedding_size": 64}
_WIDE = {"num_items": 50_000, "hidden_size": 8, "k": 2, "embedding_size": 4}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to run, and where."""

    seconds: float = 5.0
    """Length of each attack."""
    quiet: float = 2.0
    """Length of the measurement before each attack."""
    only: tuple[str, ...] = ()
    """Attacks to run; without this, all of them."""
    bundle: Annotated[
        Path | None, Parameter(help="Bundle to attack [default: array, V=1000, H=128, k=4; V=50,000 for wide answers].")
    ] = None
    markdown: Path | None = None
    """File to write the page to; it is written again after each attack."""
    server_core: int = field(default_factory=lambda: min(cores()))
    """Core of the server [default: the first]."""
    client_core: int = field(default_factory=lambda: max(cores()))
    """Core of the victim and of the attacker [default: the last]."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for fault in self._faults():
            raise ValueError(fault)

    def _faults(self) -> Iterator[str]:
        """Yield a sentence for each choice that cannot be run."""
        for name in set(self.only) - set(ATTACKS):
            yield f"{name!r} is no attack; the attacks are {', '.join(ATTACKS)}"
        for name in ("seconds", "quiet"):
            if not 0 < getattr(self, name) < float("inf"):
                yield f"{name} must be above 0 and finite, got {getattr(self, name)!r}"
        for core in {self.server_core, self.client_core} - cores():
            yield f"core {core} cannot be used; the cores are {', '.join(map(str, sorted(cores())))}"
        if self.bundle is not None and not (self.bundle / "manifest.json").is_file():
            yield f"{self.bundle} has no manifest.json; give a bundle that arraylstm-export wrote"
        if self.markdown is not None and not self.markdown.parent.is_dir():
            yield f"{self.markdown} cannot be written: there is no folder {self.markdown.parent}"

    @property
    def attacks(self) -> list[tuple[Attack, bool]]:
        """The attacks to run, each with whether the server asks for API keys."""
        chosen = [ATTACKS[name] for name in self.only] or ATTACKS.values()
        return [(attack, keys) for attack in chosen for keys in attack.keys]

    @property
    def command(self) -> str:
        """How to run the same again."""
        only = "".join(f" --only {name}" for name in self.only)
        return f"python benchmarks/edge.py --seconds {self.seconds:g} --quiet {self.quiet:g}{only}"


@app.default
def main(*, choices: Annotated[Choices, Parameter(name="*")] = Choices()) -> int:
    """Run the attacks one after the other, print a row for each, then what stands out."""
    if any(attack.tls for attack, _ in choices.attacks) and shutil.which("openssl") is None:
        raise ValueError("openssl makes the certificate for TLS, and is not installed; name other attacks with --only")
    stay_on(choices.client_core)
    results: list[Result] = []
    print("\n".join(table.lines([])), flush=True)
    try:
        for result in _results(choices):
            results.append(result)
            print(table.lines([table.row(result)])[-1], flush=True)
            if choices.markdown is not None:
                choices.markdown.write_text(table.page(results, choices.command, choices.seconds))
    except (TrialError, NotStartedError) as error:
        print(f"edge: {error}", file=sys.stderr)
        return NOT_RUN
    print("", *table.findings(results), sep="\n")
    return FAULTY if any(result.faults for result in results) else 0


def _results(choices: Choices) -> Iterator[Result]:
    plan = Plan(choices.seconds, choices.quiet, choices.server_core, choices.client_core)
    made: dict[bool, Path] = {}
    with ExitStack() as stack:
        for attack, keys in choices.attacks:
            if attack.wide not in made:
                folder = Path(stack.enter_context(TemporaryDirectory()))
                made[attack.wide] = choices.bundle or _exported(folder, wide=attack.wide)
            yield trial(attack, keys, made[attack.wide], plan)


def _exported(folder: Path, *, wide: bool) -> Path:
    """Export a model to attack."""
    from bundles import exported, untrained  # here, as with --bundle nothing needs torch

    exported(untrained(**(_WIDE if wide else _NARROW)), folder / "bundle")
    return folder / "bundle"
