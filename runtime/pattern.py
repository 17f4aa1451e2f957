"""Constrained generation: text that matches a regular expression."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import numpy as np

from .errors import CharedgeError, InvalidOption
from .text import Normalization, clusters, normalize_part

ENDED = -1  # in place of a token
MATCH_SECONDS = 2.0
"""The most time for the matches of one character; an expression that needs longer would never end."""
MAX_TRIES = 10_000  # matches tried, to tell whether an incomplete text can become a match
MAX_WRITTEN_OUT = 10_000
"""The largest `written_out`: the regex package makes a node for each repetition that there must be."""
ITEM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]|\{(?P<least>\d+)(?:,\d*)?\}|.", re.DOTALL)
"""An escape, a class, a count, or another character."""
OTHER_SYNTAX = re.compile(r"\(\?(?:#|[a-zA-Z0-9]*[xV])")
"""Comments, and a flag for them or for sets in classes, with which `ITEM` may be wrong."""
SHOWN = 60  # characters of a long expression in an error
ESCAPED_LINE_END = re.compile(r"(?<!\\)((?:\\\\)*)\\r\\n")


def as_written(expression: str, form: Normalization) -> str:
    """Rewrite an expression so that it matches text in a model's Unicode form, as far as possible character by character.

    A character that becomes several is put in a group, so that a quantifier repeats all of it; in a class, which has single
    characters, each of them is a member. Characters written as escapes (`\\u0439`) stay, except a line end `\\r\\n`.
    """
    parts: list[str] = []
    escaped, opened = False, 0  # opened: how many parts there are up to the `[` or `[^` of the class we are in; 0 outside
    for cluster in clusters(normalize_part(ESCAPED_LINE_END.sub(r"\1\\n", expression), "none"), form):
        written = cluster if escaped else normalize_part(cluster, form)
        several = len(written) > 1 and not (opened or escaped)
        if written != cluster:
            written = re.escape(written)
        parts.append(f"(?:{written})" if several else written)
        if not opened and cluster == "[" and not escaped:
            opened = len(parts)
        elif opened == len(parts) - 1 and parts[-2:] == ["[", "^"]:
            opened += 1
        elif opened and cluster == "]" and not escaped and len(parts) > opened + 1:  # the first one is a member
            opened = 0
        escaped = cluster == "\\" and not escaped
    return "".join(parts)


def written_out(expression: str) -> int:
    """Number of characters, classes and groups of an expression with its repetitions written out: 6 of `[a-z]{2}(b){2,9}`.

    At least that number: where the syntax is another one, every count is taken to repeat the whole expression.
    """
    crude = OTHER_SYNTAX.search(expression) is not None
    sizes, last, all_counts = [0], 0, 1  # sizes: of each open group; last: of the last item
    for found in ITEM.finditer(expression):
        item, least = found.group(), int((found["least"] or "1")[:9])
        all_counts *= max(1, least)
        if found["least"]:
            sizes[-1] += last * (least - 1) if least else 0
            last *= max(1, least)
        elif item == "(":
            sizes.append(1)
        else:
            last = sizes.pop() if item == ")" and len(sizes) > 1 else 1
            sizes[-1] += last
        if (all_counts * len(expression) if crude else max(sizes)) > MAX_WRITTEN_OUT:
            break
    return all_counts * len(expression) if crude else sum(sizes)


class TooSlow(CharedgeError):
    """A pattern takes too long to match."""

    def __init__(self, expression: str) -> None:
        super().__init__(f"`pattern` {expression!r} takes too long to match: write a simpler one.")


class Pattern:
    """A regular expression with partial matching (by the `regex` package): can a text still become a match?"""

    def __init__(self, expression: str, normalization: Normalization = "none", seconds: float = MATCH_SECONDS) -> None:
        """
        Args:
            expression: the regular expression that the text matches.
            normalization: the Unicode form of the model's text, to which the expression is converted.
            seconds: the most time for the matches of one character.

        Raises:
            InvalidOption: the expression is not valid, or too large.
            CharedgeError: the `regex` package is not installed.
        """
        if find_spec("regex") is None:
            raise CharedgeError("`pattern` needs the regex package: run `pip install 'charedge[pattern]'`.")
        import regex

        self.expression, self._seconds, self._end = expression, seconds, 0.0
        try:
            written = as_written(expression[: MAX_WRITTEN_OUT + 1], normalization)
            if len(expression) > MAX_WRITTEN_OUT or written_out(written) > MAX_WRITTEN_OUT:
                reason = f"has more than {MAX_WRITTEN_OUT:,} characters when its repetitions are written out"
                raise InvalidOption("pattern", f"{_shown(expression)} {reason}: write a simpler one.")
            self._compiled: Any = regex.compile(written)
        except regex.error as error:
            raise InvalidOption("pattern", f"{_shown(expression)} is not a valid regular expression ({error}): fix it.") from None
        except RecursionError:
            reason = "has too many groups in one another"
            raise InvalidOption("pattern", f"{_shown(expression)} {reason}: write a simpler one.") from None

    def begin(self) -> None:
        """Give the following matches the time of one character: processor time, so that a busy machine changes no result."""
        self._end = time.thread_time() + self._seconds

    def match(self, text: str) -> tuple[bool, bool]:
        """Match a text.

        Returns:
            Whether the text is a match, and whether it is one or could become one.

        Raises:
            TooSlow: the matches since `begin` take too long.
        """
        while (remaining := self._end - time.thread_time()) > 0:
            with suppress(TimeoutError):  # a clock that goes on while other programs run: ours may have time left
                found = self._compiled.fullmatch(text, partial=True, timeout=remaining)
                return found is not None and not found.partial, found is not None
        raise TooSlow(self.expression)


class ConstrainedRow:
    """One row's text, extended by a character at a time so that it can always become a match."""

    def __init__(self, pattern: Pattern, tokens: Sequence[str]) -> None:
        self._pattern, self._tokens = pattern, tokens
        self._text: str = ""
        pattern.begin()
        self._complete, _ = pattern.match("")

    def choose(self, scores: np.ndarray) -> int:
        """Choose the token with the highest score that the pattern allows, or `ENDED` if the text is complete and ends.

        A complete match ends when the token that the model drew would leave the pattern, so that the model decides how
        long a text of `[a-z]+` is. An incomplete one takes the best token that the pattern allows, which is a draw from the
        model's distribution over just those.

        Raises:
            CharedgeError: no character of the model continues the pattern.
        """
        self._pattern.begin()
        order: list[int] = np.argsort(-scores, kind="stable").tolist()
        for token in order:
            if not np.isfinite(scores[token]):
                break
            complete, possible = self._pattern.match(self._text + self._tokens[token])
            if possible:
                self._text += self._tokens[token]
                self._complete = complete
                return token
            if self._complete:
                return ENDED
        if self._complete:
            return ENDED
        raise self._cannot_be_completed()

    def require_complete(self, text: str, length: int, stopped: bool) -> None:
        """
        Args:
            text: everything that was written, up to the stop string if one ended it.
            length: maximum number of characters.
            stopped: whether a stop string ended it.

        Raises:
            CharedgeError: the text has ended and does not match; the message says whether a greater length can help.
        """
        expression = self._pattern.expression
        self._pattern.begin()
        if stopped:
            if not self._pattern.match(text)[0]:
                raise CharedgeError(
                    f"`stop` ended the text at {text!r}, which does not match `pattern` {expression!r}: change one of the two."
                )
        elif not self._complete:
            can_match = self._can_match()
            if can_match is False:
                raise self._cannot_be_completed()
            doubt = "" if can_match else ", or change the pattern if it needs characters that the model lacks"
            raise CharedgeError(
                f"`pattern` {expression!r} is not complete after `length` {length} characters ({text!r}): increase `length`{doubt}."
            )

    def _can_match(self) -> bool | None:
        """Whether more characters can make the text a match; None if `MAX_TRIES` and the time were too few to find out."""
        waiting, tried = [self._text], 0
        try:
            while waiting and tried < MAX_TRIES:
                text = waiting.pop()
                tried += len(self._tokens)
                for token in self._tokens[1:]:  # `[UNK]` is never drawn
                    complete, possible = self._pattern.match(text + token)
                    if complete:
                        return True
                    if possible:
                        waiting.append(text + token)
        except TooSlow:
            return None
        return None if waiting else False

    def _cannot_be_completed(self) -> CharedgeError:
        return CharedgeError(
            f"`pattern` {self._pattern.expression!r} cannot be completed after {self._text!r} with this model's characters: "
            "change it."
        )


def _shown(expression: str) -> str:
    return repr(expression) if len(expression) <= SHOWN else f"{expression[:SHOWN]!r}..."
