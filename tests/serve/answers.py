"""What tests expect of answers: the reference's numbers, and the form of a refusal."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from arraylstm_serve.api import problems

KINDS = {kind.code: kind for kind in vars(problems).values() if isinstance(kind, problems.Kind)}


def check(response: httpx.Response, code: str) -> dict[str, Any]:
    """The body of a refusal that has the RFC 9457 form and the given code."""
    problem: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(problem) - {"session_id", "step"} == {"type", "title", "status", "detail", "code"}
    assert problem["code"] == code
    assert problem["status"] == response.status_code == KINDS[code].status
    assert problem["title"] == KINDS[code].title
    assert problem["type"] == f"urn:arraylstm:problem:{code}"
    assert len(response.content) < 1000
    return problem


def near(pairs: list[tuple[Any, Any]]) -> list[Any]:
    """Pairs to compare with, the numbers within the model's tolerance."""
    return [tuple(part if isinstance(part, str) else pytest.approx(part, abs=1e-5) for part in pair) for pair in pairs]
