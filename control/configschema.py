"""The JSON Schema of `nightbell.yaml`, for editors: generated from the models that read it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from schemas.config import AgentSpec, Name, QuotaSpec, SourceSpec, SubscriptionSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _File(BaseModel):
    """What one `nightbell.yaml` may say."""

    model_config = ConfigDict(extra="forbid", title="nightbell.yaml")

    version: Annotated[Literal[1], Field(description="the version of this file's form")]
    sources: dict[Name, SourceSpec] = Field(default_factory=dict, description="inbound addresses, by name")
    agents: dict[Name, AgentSpec] = Field(default_factory=dict, description="destinations, by name")
    subscriptions: dict[Name, SubscriptionSpec] = Field(
        default_factory=dict, description="which events wake which agent, by name"
    )
    quota: QuotaSpec | None = Field(default=None, description="how many attempts all agents of the team may make in a span")


def config_schema() -> dict[str, Any]:
    """The schema, as a document."""
    schema = _File.model_json_schema(mode="validation")
    for section in schema["properties"].values():
        if "patternProperties" in section:
            section["additionalProperties"] = False  # what is no name is refused, as the reader does
    return {"$schema": DIALECT, **schema}


def config_schema_text() -> str:
    """The whole of `docs/nightbell.schema.json`."""
    return orjson.dumps(config_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"
