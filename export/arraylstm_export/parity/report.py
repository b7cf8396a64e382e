"""What the checks found, as data: a `Check` per tensor, scenario and form, and a `Report` over all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from arraylstm_export.parity.accuracy import Accuracy

_MOST_UNDECIDED = 0.5  # a few ties at once make a step undecided; the other half, thousands of steps, is judged
_MOST_STRAYED = 0.1


@dataclass(frozen=True)
class Check:
    """One tensor of one form in one scenario: compared with the reference or, for equal bits, with the form itself."""

    form: str
    scenario: str
    batch: int
    steps: int
    tensor: str
    difference: float
    """Largest |a - b| / max(1, |b|) of all that was judged."""
    where: tuple[int, ...]
    """Index of the largest difference; the step comes second, also for a state that was judged step by step."""
    tolerance: float
    ties: int = 0
    """Steps at which the form made another choice than the reference at a tie."""
    undecided_steps: int = 0
    """Steps near a tie that can be called neither right nor wrong."""
    strayed_steps: int = 0
    """Steps after a tie at which the form's run differs from its own single steps."""

    @property
    def equal_bits(self) -> bool:
        """Tell whether the form is compared with itself in other batches."""
        return self.tolerance == 0

    @property
    def passed(self) -> bool:
        """Tell whether the difference is within tolerance."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All checks of an export.

    A form fails if a check fails, if more than half of its steps are undecided, or if more than a tenth strayed.
    """

    checks: tuple[Check, ...]
    horizon: int
    """Steps of the longest run."""
    strict: bool
    """Whether differences at ties failed like any other."""
    accuracy: Accuracy | None = None
    """What a precision below fp32 costs, if it was measured."""
    not_compared: Mapping[str, str] = field(default_factory=dict)
    """Why a form's rows were not compared bit by bit, by the form, where other machines or precisions have them so."""

    @property
    def passed(self) -> bool:
        """Tell whether every check passed, and enough steps of every form could be judged."""
        decided = self.undecided <= _MOST_UNDECIDED and self.strayed <= _MOST_STRAYED
        return decided and all(check.passed for check in self.checks)

    @property
    def failure(self) -> str:
        """The reason why it did not pass."""
        failed = [check for check in self.checks if not check.passed]
        if failed:
            return self._over_tolerance(failed)
        if self.strayed > _MOST_STRAYED:
            return (
                f"after a tie, {self.strayed:.0%} of a form's steps differ from its own single steps, and at most "
                f"{_MOST_STRAYED:.0%} may: either it is wrong in long calls, or it rounds every call differently"
            )
        return (
            f"{self.undecided:.0%} of a form's steps depend on a choice between lanes that float32 cannot decide, "
            f"and at most {_MOST_UNDECIDED:.0%} may; saturated gates are the usual cause"
        )

    def _over_tolerance(self, failed: list[Check]) -> str:
        over = f"{len(failed)} of {len(self.checks)} checks are over the tolerance"
        if self.accuracy is None or any(check.equal_bits for check in failed):
            return over
        return (
            f"{over}, largest difference {self.reached:.1e}; a precision below fp32 also changes which lanes "
            f"are chosen, and {self.accuracy.same_top_1:.2%} of held-out steps keep their first item: "
            "--tolerance can allow it"
        )

    @property
    def undecided(self) -> float:
        """The largest share of undecided steps of any form."""
        return self._largest_share(lambda check: check.undecided_steps)

    @property
    def strayed(self) -> float:
        """The largest share of strayed steps of any form."""
        return self._largest_share(lambda check: check.strayed_steps)

    @property
    def ties(self) -> float:
        """The largest share of steps at which any form made another choice at a tie."""
        return self._largest_share(lambda check: check.ties)

    @property
    def reached(self) -> float:
        """The largest difference of any check."""
        return max(check.difference for check in self.checks)

    def by_form(self) -> dict[str, list[Check]]:
        """Return every form's checks, in the order the forms were checked."""
        forms: dict[str, list[Check]] = {}
        for check in self.checks:
            forms.setdefault(check.form, []).append(check)
        return forms

    def worst_by_form(self) -> list[Check]:
        """Return each form's worst check."""
        return [max(checks, key=_severity) for checks in self.by_form().values()]

    def worst_by_tensor(self) -> list[Check]:
        """Return each form's worst check of every tensor."""
        worst: dict[tuple[str, str], Check] = {}
        for check in self.checks:
            key = check.form, check.tensor
            if key not in worst or _severity(check) > _severity(worst[key]):
                worst[key] = check
        return list(worst.values())

    def _largest_share(self, count: Callable[[Check], int]) -> float:
        """Return the largest share of counted steps of any form, among the steps compared with the reference."""
        shares = []
        for checks in self.by_form().values():
            compared = [check for check in checks if not check.equal_bits]
            shares.append(sum(map(count, compared)) / sum(check.batch * check.steps for check in compared))
        return max(shares)


def _severity(check: Check) -> tuple[bool, float]:
    return not check.passed, check.difference
