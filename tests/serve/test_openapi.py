"""The API's description of itself."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from starlette.routing import Route

from arraylstm_serve.api.openapi import example
from arraylstm_serve.application import published

from .bundles import write_bundle
from .harness import Harness

ROOT = Path(__file__).parents[2]
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


KEY = "the-key"
EXAMPLE_LABELS: list[str | int] = ["home", "search", "cart", "d", "e", 5, "5"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """The running application as its own document describes it, without API keys and with."""
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "keys").write_text(f"alice {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    bundle = write_bundle(folder / "bundle", labels=None)  # small integers are items
    any_host = {"allowed_host": ("*",)}  # schemathesis has a name of its own for it
    apps = {
        False: Harness(bundle, **any_host).app,
        True: Harness(bundle, **any_host, api_keys=folder / "keys").app,
    }
    return {guarded: schemathesis.openapi.from_asgi("/openapi.json", app) for guarded, app in apps.items()}


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with keys"])
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_document_holds_for_random_requests(
    described: dict[bool, Any], operation: str, guarded: bool, data: st.DataObject
) -> None:
    """Random requests meet no server error and no answer that the document does not describe, with a key or without."""
    method, path = operation.split()
    case = data.draw(described[guarded][path][method].as_strategy())
    key = data.draw(st.sampled_from([KEY, "wrong", None])) if guarded else None
    headers = None if key is None else {"Authorization": f"Bearer {key}"}
    response = case.call_and_validate(excluded_checks=[checks.positive_data_acceptance], headers=headers)
    protected = guarded and path.startswith(("/v1/", "/v2", "/metrics"))
    assert (response.status_code == 401) == (protected and key != KEY)


@pytest.mark.anyio
@pytest.mark.parametrize("operation", sorted(OPERATIONS - {"put /v1/sessions/{session_id}/state"}))
async def test_examples_are_accepted(tmp_path: Path, operation: str) -> None:
    """The examples of the document, sent as they are, meet no refusal but that of a session not held yet."""
    harness = Harness(write_bundle(tmp_path / "bundle", labels=EXAMPLE_LABELS))
    method, path = operation.split()
    document = harness.app.openapi()
    described_operation = document["paths"][path][method]
    url = path
    for parameter in described_operation["parameters"]:
        if parameter["in"] == "path":
            url = url.replace("{" + parameter["name"] + "}", example(parameter["schema"], {}))
    content = described_operation.get("requestBody", {}).get("content", {})
    body = None
    if content:
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        (body,) = document["components"]["schemas"][name]["examples"]
    response = await harness.client.request(method, url, json=body)
    assert response.status_code in {200, 404, 426}
    assert "code" not in response.text or response.status_code != 200


def test_every_example_fits_its_schema(harness: Harness) -> None:
    """Each schema has an example that is valid against it, and each parameter one too."""
    document = harness.app.openapi()
    for name, schema in document["components"]["schemas"].items():
        for value in schema["examples"]:
            jsonschema_rs.validate({"$ref": f"#/components/schemas/{name}", **document}, value)
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                jsonschema_rs.validate(parameter["schema"], example(parameter["schema"], {}))


def test_the_document_in_the_repository_is_what_the_server_says(harness: Harness) -> None:
    """docs/openapi.json is what `make openapi` writes: the server's document without its version."""
    document = harness.app.openapi()
    document["info"]["version"] = "0"
    text = (ROOT / "docs" / "openapi.json").read_text()
    assert text == published()
    assert json.loads(text) == document


def test_operations_that_ask_for_a_key_say_so(harness: Harness) -> None:
    """Exactly what is under /v1 and /v2, and the metrics, names the two security schemes, which are described."""
    document = harness.app.openapi()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["components"]["securitySchemes"]["header"]["name"] == "X-API-Key"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            guarded = path.startswith(("/v1/", "/v2", "/metrics"))
            ways = [list(way) for way in operation.get("security", ())]
            assert ways == ([["bearer"], ["header"], []] if guarded else [])
            assert ("401" in operation["responses"]) == guarded


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
    events = [{"session_id": "v", "items": [item]} for item in ("a", "zebra")]
    bulk = (await harness.client.post("/v1/events", json={"events": events})).json()
    validate("BulkAnswer", bulk)
    with pytest.raises(jsonschema_rs.ValidationError):
        validate("BulkAnswer", {"results": [{"neither": "an answer", "nor": "a problem"}]})
    validate("Stats", (await harness.client.get("/v1/stats")).json())
    validate("Health", (await harness.client.get("/readyz")).json())


@pytest.mark.anyio
async def test_the_documentation_is_served(harness: Harness) -> None:
    """/docs is a page over /openapi.json, which is the document."""
    assert "url: 'openapi.json'" in (await harness.client.get("/docs")).text
    assert (await harness.client.get("/openapi.json")).json() == harness.app.openapi()


@pytest.mark.anyio
async def test_the_docs_page_needs_nothing_from_elsewhere(harness: Harness) -> None:
    """Swagger UI's page refers to this server alone, and what it refers to is there."""
    page = (await harness.client.get("/docs")).text
    addresses = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page)
    paths = ["".join(address) for address in addresses]
    assert {"docs/assets/swagger-ui-bundle.js", "docs/assets/swagger-ui.css", "openapi.json"} <= set(paths)
    for path in paths:
        assert urlsplit(path)[:2] == ("", "")
        assert (await harness.client.get(f"/{path}")).status_code == 200
