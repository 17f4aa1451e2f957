"""The fields of requests: what each may be, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..adaptation import DEFAULT_RATE
from ..boundaries import BOUNDARIES, MOST_MORE, Boundary
from ..errors import InvalidOption
from ..model import DEFAULT_LENGTH, Model
from ..sampling import LARGEST, MAX_WINDOW, Sampling
from ..text import normalize_part
from ..vocabulary import UNKNOWN_ID
from .errors import ApiError
from .schema import Schema, check
from .settings import Settings

MAX_STOPS, MAX_STOP = 16, 200
MAX_PATTERN = 1_000
MAX_TOP_K = 1_000_000
MAX_LOGPROBS = 20
MAX_BIASES = 1_000
MAX_REPORTED = 200_000
"""Maximum number of log probabilities that the answers of a request report."""
MAX_SEED = (1 << 63) - 1
SESSION_NAME = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"

DEFAULTS = Sampling()


class Field(NamedTuple):
    """A field of a request."""

    name: str
    schema: Schema
    description: str
    required: bool = False


def _text(most: int, least: int = 0) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": most}


def _integer(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _several(schema: Schema, most: int) -> Schema:
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1, "maxItems": most}]}


MODEL = Field("model", _text(200), "The name of a model of `/v1/models`. With one model it can be left out.")
SESSION = {
    "title": "a name of 1 to 64 letters, digits, hyphens, underscores and dots, without a dot at the beginning",
    "type": "string",
    "minLength": 1,
    "maxLength": 64,
    "pattern": SESSION_NAME,
}
ADAPT = Field("adapt", {"type": "boolean"}, "Learn from the text that is read. Default: false.")
ADAPT_RATE = Field(
    "adapt_rate",
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    f"Learning rate of `adapt`. Default: {DEFAULT_RATE}.",
)


def completion_fields(settings: Settings) -> tuple[Field, ...]:
    """The fields of `POST /v1/completions`."""
    length = min(DEFAULT_LENGTH, settings.max_length)
    return (
        MODEL,
        Field(
            "prompt",
            _several(_text(settings.max_prompt), settings.concurrency),
            "The text to continue, or a list of texts. Default: none, the model begins after its start text.",
        ),
        Field(
            "max_tokens",
            _integer(0, settings.max_length),
            "Maximum number of characters to write, or with `end_at` the minimum; 0 only reads the prompt, for `echo`. "
            f"Default: {length}.",
        ),
        Field(
            "temperature",
            _number(0, LARGEST),
            f"Below 1 safer, above 1 more varied; 0 takes the top character. Default: {DEFAULTS.temperature}.",
        ),
        Field(
            "top_p",
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "Keep the most likely characters of this total probability. Default: 1, off.",
        ),
        Field("top_k", _integer(0, MAX_TOP_K), "Keep the k most likely characters. Default: 0, off."),
        Field("min_p", _number(0, 1), "Keep characters at least this fraction as likely as the top one. Default: 0, off."),
        Field("repetition_penalty", _number(1 / LARGEST, LARGEST), "Make recent characters less likely. Default: 1, off."),
        Field(
            "repetition_window",
            _integer(1, MAX_WINDOW),
            f"Number of recent characters that `repetition_penalty` counts. Default: {DEFAULTS.repetition_window}.",
        ),
        Field(
            "logit_bias",
            {"type": "object", "additionalProperties": _number(-100, 100)},
            "Values to add to logits. A key is a character, or in digits the number of a line of `vocabulary.txt`. Default: none.",
        ),
        Field("n", _integer(1, settings.concurrency), "Number of texts for each prompt. Default: 1."),
        Field("best_of", _integer(1, settings.concurrency), "The same number as `n`. Default: `n`."),
        Field(
            "stop",
            _several(_text(MAX_STOP, 1), MAX_STOPS),
            "End the text before this text, or before one of a list. Default: none.",
        ),
        Field("seed", _integer(0, MAX_SEED), "The same seed gives the same texts. Default: random."),
        Field("echo", {"type": "boolean"}, "Begin the text with the prompt, as the model reads it. Default: false."),
        Field(
            "logprobs",
            _integer(0, MAX_LOGPROBS),
            "Report the log probability of each character, and this number of most likely characters. Default: none.",
        ),
        Field("stream", {"type": "boolean"}, "Send the text while it is written, as server-sent events. Default: false."),
        Field(
            "stream_options",
            {"type": "object", "properties": {"include_usage": {"type": "boolean"}}, "additionalProperties": False},
            "For `stream`: with `include_usage` the last event has the numbers of characters. Default: none.",
        ),
        Field("pattern", _text(MAX_PATTERN), "A regular expression that the text matches as a whole. Default: none."),
        Field(
            "end_at",
            {"type": "string", "enum": list(BOUNDARIES)},
            f"End after the next of these, at `max_tokens` or up to {MOST_MORE:,} characters later. Default: none.",
        ),
        ADAPT,
        ADAPT_RATE,
        Field("session", SESSION, "Continue the text of this session, and save it when the text is complete. Default: none."),
        Field("suffix", {"type": "string", "enum": []}, "Not supported: must be null."),
        Field("presence_penalty", {"type": "number", "enum": [0]}, "Not supported: must be null or 0."),
        Field("frequency_penalty", {"type": "number", "enum": [0]}, "Not supported: must be null or 0."),
    )


def score_fields(settings: Settings) -> tuple[Field, ...]:
    """The fields of `POST /v1/score`."""
    text = Field("text", _text(settings.max_prompt), "The text to score.", required=True)
    return (MODEL, text, ADAPT, ADAPT_RATE)


FORK_FIELDS = (Field("to", SESSION, "The name of the new session.", required=True),)


def read_fields(fields: tuple[Field, ...], body: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields of a body; null is the same as leaving a field out.

    Returns:
        The values that were given.

    Raises:
        ApiError: a field is unknown or missing, has an invalid value, or needs another one.
    """
    known = {entry.name: entry for entry in fields}
    values: dict[str, Any] = {}
    for name, value in body.items():
        if value is None and name in known:
            continue
        if name not in known:
            shown = name[:64]
            raise ApiError(
                422, f"`{shown}` is not a field that this server knows: leave it out.", param=shown, code="unknown_field"
            )
        values[name] = check(known[name].schema, value, name)
    for entry in fields:
        if entry.required and entry.name not in values:
            raise ApiError(422, f"`{entry.name}` is missing.", param=entry.name, code="missing_field")
    if "adapt_rate" in values and not values.get("adapt"):
        message = "`adapt_rate` has no effect without `adapt`: give both, or leave it out."
        raise ApiError(422, message, param="adapt_rate", code="invalid_value")
    return values


@dataclass(frozen=True)
class Completion:
    """A request for texts."""

    model: str | None
    prompts: list[str]
    length: int
    n: int
    sampling: Sampling
    bias: Mapping[str, float]
    """By character or by the number of a token, as it was given."""
    stop: list[str]
    seed: int | None = None
    echo: bool = False
    logprobs: int | None = None
    stream: bool = False
    include_usage: bool = False
    pattern: str | None = None
    end_at: Boundary | None = None
    adapt: bool = False
    adapt_rate: float = DEFAULT_RATE
    session: str | None = None

    @classmethod
    def read(cls, fields: tuple[Field, ...], body: Mapping[str, Any], settings: Settings) -> Completion:
        """Read a body.

        Raises:
            ApiError: a field is wrong, or does not go together with another one.
        """
        values = read_fields(fields, body)
        _require_consistent(values, settings)
        controls = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "repetition_window")
        plain = ("seed", "echo", "logprobs", "stream", "pattern", "end_at", "adapt", "adapt_rate", "session")
        return cls(
            model=values.get("model"),
            prompts=_listed(values.get("prompt", "")),
            length=values.get("max_tokens", min(DEFAULT_LENGTH, settings.max_length)),
            n=values.get("n", 1),
            sampling=Sampling(**{name: values[name] for name in controls if name in values}),
            bias=values.get("logit_bias", {}),
            stop=_listed(values.get("stop", [])),
            include_usage=values.get("stream_options", {}).get("include_usage", False),
            **{name: values[name] for name in plain if name in values},
        )

    def sampling_for(self, model: Model) -> Sampling:
        """The controls, with the bias by the model's characters.

        Raises:
            InvalidOption: the bias does not fit the model.
        """
        return replace(self.sampling, logit_bias=_character_bias(self.bias, model))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _require_consistent(values: Mapping[str, Any], settings: Settings) -> None:
    """Check the fields that depend on each other.

    Raises:
        ApiError: two do not go together.
    """

    def refuse(name: str, problem: str) -> None:
        raise ApiError(422, f"`{name}` {problem}", param=name, code="invalid_value")

    prompts, n, length = _listed(values.get("prompt", "")), values.get("n", 1), values.get("max_tokens", DEFAULT_LENGTH)
    characters = sum(map(len, prompts))
    if characters > settings.max_prompt:
        refuse("prompt", f"has {characters:,} characters in all: give at most {settings.max_prompt:,}.")
    if len(prompts) * n > settings.concurrency:
        refuse("n", f"asks for {len(prompts) * n} texts in all: ask for at most {settings.concurrency}.")
    if values.get("best_of", n) != n:
        refuse("best_of", "must be the same number as `n`, or be left out.")
    if length == 0 and not values.get("echo"):
        refuse("max_tokens", "must be at least 1; 0 only reads the prompt, which needs `echo`.")
    if "stream_options" in values and not values.get("stream"):
        refuse("stream_options", "needs `stream`.")
    if "session" in values and (len(prompts) > 1 or n > 1 or length == 0):
        refuse("session", "keeps one text: give one `prompt`, `n` 1 and a `max_tokens` above 0.")
    if len(values.get("logit_bias", {})) > MAX_BIASES:
        refuse("logit_bias", f"has more than {MAX_BIASES:,} keys.")
    if "logprobs" in values:
        written = length + (MOST_MORE if "end_at" in values else 0)
        reported = n * (len(prompts) * written + (characters if values.get("echo") else 0)) * (1 + values["logprobs"])
        if reported > MAX_REPORTED:
            refuse("logprobs", f"asks for {reported:,} log probabilities: ask for at most {MAX_REPORTED:,}, or for less text.")


def _character_bias(bias: Mapping[str, float], model: Model) -> dict[str, float]:
    """The bias by character.

    Raises:
        InvalidOption: a key is neither a character of the model nor the number of one.
    """
    tokens = model.vocabulary.tokens
    by_character: dict[str, float] = {}
    for key, value in bias.items():
        is_number = key.isascii() and key.isdigit()
        character = key
        if is_number and len(key) < 10 and UNKNOWN_ID < int(key) < len(tokens):
            character = tokens[int(key)]
        elif is_number or len(key) > 16 or not model.vocabulary.encode(normalize_part(key, model.manifest.normalization)).all():
            numbers = f"1 to {len(tokens) - 1}"
            raise InvalidOption(
                "logit_bias", f"{key[:16]!r} is neither a character of the model nor the number of one ({numbers})."
            )
        by_character[character] = by_character.get(character, 0.0) + value
    return by_character
