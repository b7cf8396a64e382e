"""The API's description of itself."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from starlette.routing import Route

from .bundles import write_bundle
from .harness import Harness

OPERATIONS = {
    "post /v1/sessions/{session_id}/events",
    "get /v1/sessions/{session_id}",
    "delete /v1/sessions/{session_id}",
    "get /v1/sessions/{session_id}/predictions",
    "post /v1/predict",
    "get /v1/sessions/{session_id}/state",
    "put /v1/sessions/{session_id}/state",
    "post /v1/events",
    "get /v1/stream",
    "get /v1/model",
    "get /v1/stats",
    "get /v1/vocabulary",
    "get /metrics",
    "get /healthz",
    "get /readyz",
    "get /v2",
    "get /v2/health/live",
    "get /v2/health/ready",
    "get /v2/models/{model}",
    "get /v2/models/{model}/ready",
    "get /v2/models/{model}/config",
    "post /v2/models/{model}/infer",
    "get /v2/models/{model}/versions/{version}",
    "get /v2/models/{model}/versions/{version}/ready",
    "get /v2/models/{model}/versions/{version}/config",
    "post /v2/models/{model}/versions/{version}/infer",
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The running application as its own document describes it."""
    harness = Harness(write_bundle(tmp_path_factory.mktemp("openapi") / "bundle"))
    return schemathesis.openapi.from_asgi("/openapi.json", harness.app)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_document_holds_for_random_requests(described: Any, operation: str, data: st.DataObject) -> None:
    """Random requests meet no server error and no answer that the document does not describe."""
    method, path = operation.split()
    case = data.draw(described[path][method].as_strategy())
    case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])


def test_the_document_lists_every_operation(harness: Harness) -> None:
    """Every route is described, the one outside FastAPI among them, and nothing else is."""
    paths = harness.app.openapi()["paths"]
    assert {f"{method} {path}" for path, methods in paths.items() for method in methods} == OPERATIONS
    served = {route.path for route in harness.app.routes if isinstance(route, Route)}
    assert served - {"/", "/docs", "/docs/oauth2-redirect", "/openapi.json"} == set(paths) - {
        "/v1/sessions/{session_id}/events"
    }


def test_every_reference_leads_somewhere(harness: Harness) -> None:
    """Each schema that the document refers to is among its components."""
    document = harness.app.openapi()
    used = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert used == set(document["components"]["schemas"])


@pytest.mark.anyio
async def test_answers_fit_their_schemas(harness: Harness) -> None:
    """What the server answers is valid against the schema it promises, also where numbers are null."""
    document = harness.app.openapi()

    def validate(name: str, answer: Any) -> None:
        jsonschema_rs.validate({"$ref": f"#/components/schemas/{name}", **document}, answer)

    validate("SessionAnswer", (await harness.send("u", "a", "b")).json())
    validate("SessionInfo", (await harness.client.get("/v1/sessions/u")).json())
    validate("Manifest", (await harness.client.get("/v1/model")).json())
    validate("VocabularyFile", (await harness.client.get("/v1/vocabulary")).json())
    validate("ProblemBody", (await harness.send("u", "a", expected_step=9)).json())
    predicted = await harness.client.post("/v1/predict", json={"items": ["a"]})
    validate("PredictAnswer", predicted.json())


@pytest.mark.anyio
async def test_the_documentation_is_served(harness: Harness) -> None:
    """/docs is a page over /openapi.json, which is the document."""
    assert "/openapi.json" in (await harness.client.get("/docs")).text
    assert (await harness.client.get("/openapi.json")).json() == harness.app.openapi()


@pytest.mark.anyio
async def test_the_docs_page_needs_nothing_from_elsewhere(harness: Harness) -> None:
    """Swagger UI's page refers to this server alone, and what it refers to is there."""
    page = (await harness.client.get("/docs")).text
    addresses = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page)
    paths = ["".join(address) for address in addresses]
    assert {"/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css", "/openapi.json"} <= set(paths)
    for path in paths:
        assert path.startswith("/")
        assert (await harness.client.get(path)).status_code == 200
