"""The OpenAPI 3.1 document, made from the routes' table and its models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from control.answers import Bytes, EventStream, Problem
from control.auth import Role
from control.problems import MEDIA_TYPE
from control.routes import ROUTES, Route

_Names = dict[tuple[Any, str], str]  # (model, mode) -> reference
_REF = "#/components/schemas/{model}"
_JSON = "application/json"
_REFUSALS = {"400": "not readable", "401": "no valid key", "403": "not this role", "404": "no such thing", "422": "wrong"}
_WITH_BODY_REFUSALS = {"409": "contradicts what is there", "413": "too large", "415": "not JSON"}


def openapi_document(version: str, *, server: str) -> dict[str, Any]:
    """The API of this build, at `server`."""
    names, schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Nightbell", "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "an API key (`nbk_…`), or for agents an invocation's own token (`links.token`)",
                }
            },
        },
    }


def _schemas() -> tuple[_Names, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], Any], None] = {(Problem, "serialization"): None}
    for route in ROUTES:
        wanted[route.answer, "serialization"] = None
        if route.body is not None:
            wanted[route.body, "validation"] = None
    found, document = models_json_schema(list(wanted), ref_template=_REF)
    names: _Names = {key: ref["$ref"] for key, ref in found.items()}
    return names, document["$defs"]


def _operation(route: Route, names: _Names) -> dict[str, Any]:
    refusals = _REFUSALS | (_WITH_BODY_REFUSALS if route.method != "GET" else {})
    found: dict[str, Any] = {
        "operationId": route.act.__name__,
        "tags": [route.path.split("/")[2]],
        "summary": (route.act.__doc__ or "").strip().partition("\n")[0],
        "description": _who(route),
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {
            str(route.status): {"description": "done", "content": _answer(route, names)},
            **{code: _problem_response(text, names) for code, text in refusals.items()},
        },
    }
    if route.body is not None:
        is_needed = bool(route.is_raw or any(field.is_required() for field in route.body.model_fields.values()))
        content = {_JSON: {"schema": {"$ref": names[route.body, "validation"]}}}
        found["requestBody"] = {"required": is_needed, "content": content}
    return found


def _who(route: Route) -> str:
    if route.role is Role.AGENT:
        return "For agents: the invocation's own token, or a key of the role agent."
    also = "; agents, for what is theirs" if route.for_agents else ""
    return f"Least role: {route.role.value}{also}."


def _answer(route: Route, names: _Names) -> dict[str, Any]:
    if route.answer is Bytes:
        return {"application/octet-stream": {}}
    if route.answer is EventStream:
        return {"text/event-stream": {}}
    return {_JSON: {"schema": {"$ref": names[route.answer, "serialization"]}}}


def _problem_response(text: str, names: _Names) -> dict[str, Any]:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": names[Problem, "serialization"]}}}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(ref_template=_REF)
    defs = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": _inlined(found, defs)}
        for name, found in schema["properties"].items()
    ]


def _inlined(schema: Any, defs: dict[str, Any]) -> Any:
    # Query models are small and flat: their few references are written out, so that they need no place among the components.
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(defs[schema["$ref"].rpartition("/")[2]], defs)
        return {name: _inlined(value, defs) for name, value in schema.items()}
    return [_inlined(value, defs) for value in schema] if isinstance(schema, list) else schema
