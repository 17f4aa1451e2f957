"""Figures for Prometheus, in its text format."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping

from .served import Served

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram, in seconds."""


class Histogram:
    """Counts values by size."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a value."""
        self._counts[sum(seconds > bound for bound in BUCKETS)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterable[str]:
        """In the text format."""
        total = 0
        for bound, count in zip((*BUCKETS, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """What a server counts.

    Attributes:
        requests: by path and status.
        first_character: seconds from a request to the first character of its text.
    """

    def __init__(self) -> None:
        self.requests = Counter[tuple[str, int]]()
        self.first_character = Histogram()

    def text(self, models: Mapping[str, Served], sessions: int) -> str:
        """All figures in the text format.

        Args:
            models: by name.
            sessions: the number of sessions in the folder.
        """
        by_model = {
            ("charedge_characters_read_total", "counter", "Characters of prompts and of scored texts."): "characters_read",
            ("charedge_characters_written_total", "counter", "Characters of the texts that were written."): "characters_written",
            ("charedge_rows_in_use", "gauge", "Texts that are read or written at the moment."): "rows_in_use",
            ("charedge_queue_length", "gauge", "Prompts that wait for a row."): "queued",
        }
        lines: list[str] = []
        for head, attribute in by_model.items():
            lines += _head(*head)
            lines += [
                f'{head[0]}{{model="{_escape(name)}"}} {getattr(served.engine, attribute)}' for name, served in models.items()
            ]
        lines += _head("charedge_requests_total", "counter", "Requests that were answered; 499 is a client that left.")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'charedge_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += _head("charedge_first_character_seconds", "histogram", "Time from a request to the first character of its text.")
        lines += self.first_character.lines("charedge_first_character_seconds")
        for name, help_text, value in (
            ("charedge_sessions", "Sessions in the folder.", sessions),
            ("charedge_resident_memory_bytes", "Memory of the process.", resident_bytes()),
        ):
            lines += [*_head(name, "gauge", help_text), f"{name} {value}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """The memory of this process that is in RAM; 0 where it cannot be read."""
    if not sys.platform.startswith("linux"):
        return 0
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _head(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
