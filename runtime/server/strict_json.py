"""JSON as the server takes it: what has two readings is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from .errors import ApiError


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ApiError: 400 if it is not UTF-8 or not JSON, has NaN, an infinite or a very long number, a key twice or half a
            surrogate pair, or is nested very deeply; 422 if it is another value than an object.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for a surrogate without its other half
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 at byte {error.start}: send JSON in UTF-8.", code="invalid_json") from None
    except UnicodeEncodeError:
        raise ApiError(400, "the body has half a surrogate pair: send characters as a whole.", code="invalid_json") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise ApiError(400, f"the body is not JSON ({where}): send a JSON object.", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply: send a flat JSON object.", code="invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body cannot be used: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(422, "the body must be a JSON object.", code="invalid_type")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it has a key twice")
    return fields


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("it has a number that is too large")
    return value
