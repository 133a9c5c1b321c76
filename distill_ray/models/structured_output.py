"""What users may give as ``structured_output``, and how a chat server is asked for it."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator

from distill_ray.errors import ParameterError


def json_schema_of(value: Any) -> Any:
    """Return the JSON schema in a schema, a pydantic model or ``{"format": "json", "schema": ...}``."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if isinstance(value, dict) and "schema" in value:
        if value.get("format", "json") != "json":
            raise ParameterError(
                f"structured_output: format {value['format']!r} is not supported: use 'json' and a schema."
            )
        return json_schema_of(value["schema"])
    if isinstance(value, dict) and set(value) == {"format"}:
        raise ParameterError(f"structured_output: the 'schema' is missing beside 'format': {value!r:.200}.")
    return value


JsonSchema: TypeAlias = Annotated[dict[str, Any], BeforeValidator(json_schema_of)]
"""A JSON schema that every answer must follow."""


def constraint_of(value: Any) -> dict[str, Any]:
    """Return ``{"format": "json" | "regex", "schema": ...}`` of such a one, a schema or a pydantic model."""
    kind = value.get("format", "json") if isinstance(value, dict) and "schema" in value else "json"
    if kind not in ("json", "regex"):
        raise ParameterError(f"structured_output: format {kind!r} is not supported: use 'json' or 'regex'.")
    if kind == "regex":
        if not isinstance(value.get("schema"), str):
            raise ParameterError("structured_output: of format 'regex' the schema is the expression, a text.")
        return {"format": "regex", "schema": value["schema"]}
    return {"format": "json", "schema": json_schema_of(value)}


Constraint: TypeAlias = Annotated[dict[str, Any], BeforeValidator(constraint_of)]
"""What every answer must follow: a JSON schema, or a regular expression."""


def check_only_schema(response_format: dict[str, Any] | None) -> None:
    """Refuse a ``response_format`` beside ``structured_output``, which asks for one of its own."""
    if response_format is not None:
        raise ParameterError("give structured_output or generation_kwargs['response_format'], not both.")


def response_format_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the ``response_format`` of a chat completion request for a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
