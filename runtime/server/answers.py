"""The objects of answers, in the legacy shape of OpenAI's completions."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from .jobs import Character


class Choice:
    """One text of an answer: what was sent of it, and how much."""

    def __init__(self, index: int, reports: bool) -> None:
        """
        Args:
            index: of the text in the answer.
            reports: whether log probabilities are reported.
        """
        self.index, self._reports = index, reports
        self._offset = 0

    def part(self, text: str, characters: Sequence[Character], finish_reason: str | None = None) -> dict[str, Any]:
        """The next part of the text, or all of it."""
        logprobs = logprobs_of(characters, self._offset) if self._reports else None
        self._offset += len(text)
        return {"text": text, "index": self.index, "logprobs": logprobs, "finish_reason": finish_reason}


def logprobs_of(characters: Sequence[Character], offset: int) -> dict[str, Any]:
    """Log probabilities in the legacy shape.

    Args:
        characters: of the text.
        offset: of the first one in the choice's text.
    """
    offsets = []
    for character in characters:
        offsets.append(offset)
        offset += len(character.token)
    return {
        "tokens": [character.token for character in characters],
        "token_logprobs": [character.logprob for character in characters],
        "top_logprobs": [dict(character.top) or None for character in characters],
        "text_offset": offsets,
    }


class Envelope:
    """What all objects of one answer have in common."""

    def __init__(self, model: str) -> None:
        """
        Args:
            model: its name.
        """
        self._fields = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def wrap(self, choices: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """An object with these choices, and with those of the other fields that are not None."""
        given = {name: value for name, value in fields.items() if value is not None}
        return {**self._fields, "choices": list(choices), **given}


def usage_of(read: int, written: int) -> dict[str, int]:
    """The numbers of characters, which are this server's tokens."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"
