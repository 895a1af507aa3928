"""Schemas for a model to read."""

from __future__ import annotations

from pydantic import BaseModel, Field

from supervisord_agents.mcp_bridge.schema import lean


class Inner(BaseModel):
    """Not for the model."""

    title: str = ""
    default: int = Field(7, description="seven")


class Outer(BaseModel):
    items: list[Inner]
    note: str | None = None


def test_a_schema_says_what_a_model_needs_and_no_more() -> None:
    assert lean(Outer.model_json_schema()) == {
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "default": {"type": "integer", "default": 7, "description": "seven"},
                    },
                },
            },
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
