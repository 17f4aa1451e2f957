"""The part of JSON Schema that the fields are described with: it checks them, names what is expected, and is in `/openapi.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ApiError

Schema = Mapping[str, Any]


def check(schema: Schema, value: Any, name: str) -> Any:
    """Check a value of JSON.

    Args:
        schema: with `type` or `anyOf`, and the bounds that `expected` knows.
        value: from `json.loads`.
        name: of the field, for errors.

    Returns:
        The value; a number that is to be an integer is an int.

    Raises:
        ApiError: it does not fit.
    """
    value = _integral(schema, value)
    if not _fits(schema, value):
        raise ApiError(422, f"`{name}` must be {expected(schema)}.", param=name, code="invalid_value")
    return value


def expected(schema: Schema) -> str:
    """What a schema allows, in words: `an integer from 1 to 32`."""
    if "title" in schema:
        return schema["title"]
    if "anyOf" in schema:
        return ", or ".join(map(expected, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join([repr(value) if isinstance(value, str) else str(value) for value in schema["enum"]]) or "null"
    kind = schema["type"]
    if kind == "boolean":
        return "true or false"
    if kind == "object":
        values = schema["additionalProperties"]
        return f"an object whose values are {expected(values)}" if values else f"an object with {', '.join(schema['properties'])}"
    if kind == "array":
        return f"a list of {schema['minItems']} to {schema['maxItems']} of these"
    if kind == "string":
        return f"a text of {schema['minLength']} to {schema['maxLength']:,} characters"
    noun, high = "an integer" if kind == "integer" else "a number", _shown(schema["maximum"])
    return f"{noun} from {_shown(schema['minimum'])} to {high}" if "minimum" in schema else f"{noun} above 0, at most {high}"


def _shown(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _integral(schema: Schema, value: Any) -> Any:
    """5.0 is an integer in JSON."""
    whole = schema.get("type") == "integer" and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _fits(schema: Schema, value: Any) -> bool:
    if "anyOf" in schema:
        return any(_fits(option, value) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"] and not isinstance(value, bool)
    kind = schema["type"]
    if kind == "string":
        fits = isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
        return fits and ("pattern" not in schema or re.fullmatch(schema["pattern"], value) is not None)
    if kind == "array":
        fits = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
        return fits and all(_fits(schema["items"], item) for item in value)
    if kind == "object":
        return isinstance(value, dict) and all(
            _fits(schema.get("properties", {}).get(key) or schema["additionalProperties"] or NOTHING, item)
            for key, item in value.items()
        )
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
        return False
    low = value >= schema["minimum"] if "minimum" in schema else value > schema["exclusiveMinimum"]
    return low and value <= schema["maximum"]


NOTHING: Schema = {"enum": []}
"""Fits no value."""
