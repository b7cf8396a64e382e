"""The OpenAPI document, made from the operations and the types they name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from arraylstm_serve.api.problems import FOREIGN_HOST, JSON, MEDIA_TYPE, OVERLOADED, RATE_LIMITED, UNAUTHORIZED, Kind
from arraylstm_serve.api.schemas import Key, ProblemBody, SessionId

REFERENCE = "#/components/schemas/{name}"
KEY_HEADER = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": msgspec.json.schema(Key)}
LENGTH_HEADER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": {
        "type": "integer",
        "minimum": 0,
        "description": "Length of the JSON in bytes, if binary data follow it.",
        "examples": [180],
    },
}

Json = dict[str, Any]

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, if the server asks for one."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key, in a header of its own.",
    },
}
SECURITY: list[Json] = [*({name: []} for name in SECURITY_SCHEMES), {}]
"""Either scheme, or none if the server was started without --api-keys."""

PROTECTED = ("/v1/", "/v2", "/metrics")
"""How the paths begin that need an API key, if the server was started with --api-keys."""

PATH_TYPES: dict[str, Any] = {"session_id": SessionId}
"""The types of the parameters in paths."""

PLAIN: dict[type, tuple[str, Json]] = {
    bytes: ("application/octet-stream", {"type": "string", "format": "binary"}),
    str: ("text/plain", {"type": "string", "examples": ["arraylstm_sessions_active 17.0"]}),
}
"""Media type and schema of bodies that are not JSON."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        method: in upper case.
        path: may have parameters in braces, such as `{session_id}`.
        path_types: the type of each parameter.
        name: the operation's stable id.
        summary: one line.
        answers: the type of each status's body: None for no body, bytes for a file, str for text, else a JSON type.
        body: the type of the request's body, in the same way.
        query: the type whose fields are the query's parameters.
        keyed: whether it takes an Idempotency-Key.
        binary: whether binary tensor data may follow the JSON, in the body and in the answer.
        problems: what the operation can be refused for, besides a missing API key and a foreign host name.
        refusal: the type of a refusal's body.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, type | None]
    body: type | None = None
    query: type | None = None
    keyed: bool = False
    binary: bool = False
    problems: Sequence[Kind] = field(default=())
    refusal: type = ProblemBody
    path_types: Mapping[str, Any] = field(default_factory=PATH_TYPES.copy)

    @property
    def protected(self) -> bool:
        """Whether the operation needs an API key, if the server asks for one."""
        return self.path.startswith(PROTECTED)

    @property
    def refusals(self) -> Sequence[Kind]:
        """Everything that the operation can be refused for."""
        everywhere = (UNAUTHORIZED, FOREIGN_HOST, RATE_LIMITED, OVERLOADED) if self.protected else (FOREIGN_HOST,)
        return (*everywhere, *self.problems)


def document(operations: Sequence[Operation], version: str) -> Json:
    """Make the OpenAPI 3.1 document of the operations."""
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    _, components = msgspec.json.schema_components(_types(operations), ref_template=REFERENCE)
    for schema in components.values():
        schema["examples"] = [example(schema, components)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "arraylstm-serve",
            "version": version,
            "description": "Next-item predictions from an ArrayLSTM, whose recurrent state is kept for each session.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY_SCHEMES},
    }


def example(schema: Json, components: dict[str, Json]) -> Any:
    """Make a value of a schema from the examples of its parts, with the optional parts that have one."""
    for known in ("examples", "enum"):
        if known in schema:
            return schema[known][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], components)
    if "default" in schema:
        return schema["default"]
    if "$ref" in schema:
        return example(components[schema["$ref"].rpartition("/")[2]], components)
    if "properties" in schema:
        return {
            name: example(part, components)
            for name, part in schema["properties"].items()
            if name in schema.get("required", ()) or part.keys() & {"examples", "default", "anyOf"}
        }
    if isinstance(values := schema.get("additionalProperties"), dict):
        return {"step.onnx": example(values, components)}
    if schema["type"] == "array":
        return [example(schema["items"], components)]
    return {"integer": 128, "number": 1.5, "boolean": True}[schema["type"]]


def _types(operations: Sequence[Operation]) -> list[type]:
    named: list[type] = [ProblemBody]
    for operation in operations:
        kinds = (operation.refusal, operation.body, *operation.answers.values())
        named += [kind for kind in kinds if kind and kind not in PLAIN]
    return list(dict.fromkeys(named))


def _describe(operation: Operation) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.protected:
        described["security"] = SECURITY
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body, operation.binary)}
    return described


def _parameters(operation: Operation) -> list[Json]:
    parameters: list[Json] = []
    for name in re.findall(r"{(\w+)}", operation.path):
        parameters.append(
            {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(operation.path_types[name])}
        )
    if operation.query is not None:
        _, components = msgspec.json.schema_components([operation.query])
        properties = components[operation.query.__name__]["properties"]
        parameters += [
            {"name": name, "in": "query", "required": "default" not in schema, "schema": schema}
            for name, schema in properties.items()
        ]
    if operation.keyed:
        parameters.append(KEY_HEADER)
    if operation.binary:
        parameters.append(LENGTH_HEADER)
    return parameters


def _responses(operation: Operation) -> Json:
    responses: Json = {}
    for status, answer in operation.answers.items():
        body = {} if answer is None else {"content": _content(answer, operation.binary)}
        responses[str(status)] = {"description": _summary(answer), **body}
    for status in sorted({kind.status for kind in operation.refusals}):
        kinds = [kind for kind in operation.refusals if kind.status == status]
        responses[str(status)] = {
            "description": "; ".join(f"{kind.code}: {kind.title}" for kind in kinds),
            "content": _content(operation.refusal),
        }
    return responses


def _summary(answer: type | None) -> str:
    return "Done." if answer is None or answer in PLAIN else (answer.__doc__ or "").strip()


def _content(kind: type, binary: bool = False) -> Json:
    if kind in PLAIN:
        media_type, schema = PLAIN[kind]
        return {media_type: {"schema": schema}}
    media_type = MEDIA_TYPE if kind is ProblemBody else JSON
    content: Json = {media_type: {"schema": {"$ref": REFERENCE.format(name=kind.__name__)}}}
    return content | _content(bytes) if binary else content
