"""A connection: uvicorn's, with limits on clients that are slow or too many, and with the protocol's error objects."""

from __future__ import annotations

import asyncio
import json
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import ApiError

HEAD_SECONDS = 15.0
"""The most time for a client to send the head of a request."""
STALL_SECONDS = 30.0
"""The most time for a client to take what was sent to it, or `SEND_BYTES` of that."""
SEND_BYTES = 65_536
"""What the system keeps for a client that does not read; left to itself it keeps megabytes."""
MAX_HEAD = 16_384
"""Maximum number of bytes of a request's head."""
MAX_CONNECTIONS = 500


class Connection(H11Protocol):
    """A connection with a client.

    A client that takes longer for the head of a request, or does not read its answer, is disconnected; the latter ends its request
    as if it had left.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that `pause_writing` is called for whatever a client does not take
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(ApiError(503, "too many connections: try again in a moment.", code="too_many_connections"))
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or too long a head; called by uvicorn."""
        if self.cycle is not None and not self.cycle.response_complete:  # the body of a request whose answer is on its way
            self.transport.close()
            return
        self._refuse(
            ApiError(400, "this is not an HTTP request with a head of at most 16 KB: send another one.", code="invalid_http")
        )

    def _expect_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._on_slow_head)

    def _expect_reading(self) -> None:
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._on_stall, self.transport.get_write_buffer_size())

    def _on_stall(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() <= unread - SEND_BYTES:
            self._expect_reading()
        else:
            self.transport.abort()

    def _on_slow_head(self) -> None:
        self._refuse(ApiError(408, f"the head of the request did not arrive within {HEAD_SECONDS:g} seconds.", code="timeout"))

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()

    def _refuse(self, error: ApiError) -> None:
        """Answer outside of a request, and close the connection."""
        body = json.dumps(error.body).encode()
        headers = {**error.headers, "Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {error.status} \r\n{head}\r\n".encode("ascii") + body)
        self.transport.close()
