"""Lets the workers of a training wait for each other before TensorFlow's own rendezvous starts. Does not import TensorFlow.

TensorFlow's rendezvous has no timeout and cannot be interrupted.
"""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..runtime.errors import CharedgeError
from .cluster import Cluster, host_and_port, read_cluster

CALL_SECONDS = 10.0  # timeout of a connection to another worker
PAUSE_SECONDS = 0.2  # between two calls
LINE_BYTES = 2**20


def wait_for_workers(seconds: float, say: Callable[[str], object] | None = None) -> None:
    """Wait until every worker of TF_CONFIG has reached every other one; do nothing if this process trains alone.

    This worker listens on its own address and calls the others on theirs. The port is free again when the function returns.

    Args:
        seconds: how long to wait.
        say: called with one line that names the addresses of the others.

    Raises:
        CharedgeError: a worker did not answer in time or has another TF_CONFIG, or this worker's port is in use.
    """
    cluster = read_cluster()
    if not cluster.addresses:
        return
    with _Meeting(cluster) as meeting:
        if say is not None:
            addresses = ", ".join(cluster.addresses[index] for index in cluster.others)
            say(f"waiting up to {seconds:g} seconds for the workers at {addresses}")
        meeting.wait(seconds)


@dataclass(frozen=True)
class _Message:
    """Message between two workers, a line of JSON."""

    addresses: list[str]
    index: int
    waiting_for: list[str]
    """Addresses that did not answer the sender's last call."""

    def line(self) -> bytes:
        return json.dumps(vars(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> _Message:
        """
        Raises:
            ValueError, TypeError: the sender is not a waiting worker; it may be the TensorFlow server of a running training.
        """
        return cls(**json.loads(line))


class _Meeting(socketserver.ThreadingTCPServer):
    """One worker's side of the rendezvous: a server that answers the other workers, and a thread for each that calls it.

    A worker is ready when every other worker has answered its last call. Two workers have settled when both were ready in one
    exchange, whichever of them called: then neither needs another answer. A worker leaves when it has settled with every other
    worker, so no worker waits for one that has left.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, cluster: Cluster) -> None:
        """
        Raises:
            CharedgeError: the port is in use.
        """
        self.cluster = cluster
        self.changed = threading.Condition()
        self.answers: dict[int, _Message] = {}  # the answer to the last call, by index of the other worker
        self.settled: set[int] = set()
        self.stranger: str | None = None  # the address of a worker with another TF_CONFIG
        self.left = threading.Event()
        self.address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        address = cluster.addresses[cluster.index]
        _, port = host_and_port(address)
        try:
            super().__init__(("", port), _Answer)
        except OSError as error:
            raise CharedgeError(
                f"{address}, this worker's address in TF_CONFIG, cannot be used ({error.strerror}): "
                f"end the process that has port {port}, or choose another port."
            ) from None

    def server_bind(self) -> None:
        """Take the port on every interface of this machine, as TensorFlow's server does."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def __enter__(self) -> _Meeting:
        threading.Thread(target=self.serve_forever, args=(PAUSE_SECONDS,), daemon=True).start()
        for index in self.cluster.others:
            threading.Thread(target=self._keep_calling, args=(index,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        self.shutdown()
        self.server_close()

    def wait(self, seconds: float) -> None:
        """Wait until this worker has settled with every other worker.

        Args:
            seconds: how long to wait.

        Raises:
            CharedgeError: the time is over, or another worker has another TF_CONFIG.
        """

        def over() -> bool:
            return self.stranger is not None or len(self.settled) == len(self.cluster.others)

        with self.changed:
            in_time = self.changed.wait_for(over, min(seconds, threading.TIMEOUT_MAX))
            if self.stranger is not None:
                raise CharedgeError(
                    f"the worker at {self.stranger} was started with another TF_CONFIG: "
                    "give all workers the same addresses, and each its own index."
                )
            if not in_time:
                raise CharedgeError(
                    f"no answer from {', '.join(self._missed())} within {seconds:g} seconds: start all workers, check their "
                    "addresses in TF_CONFIG and the firewalls between them, or give a longer `worker_timeout`."
                )

    def message(self) -> _Message:
        """The message that this worker sends now."""
        with self.changed:
            answered = self.answers.keys() | self.settled
            waiting_for = [self.cluster.addresses[index] for index in self.cluster.others if index not in answered]
        return _Message(self.cluster.addresses, self.cluster.index, waiting_for)

    def _missed(self) -> list[str]:
        """Addresses that did not answer this worker, or a worker that answers it, in the order of TF_CONFIG."""
        messages = [self.message(), *(self.answers[index] for index in self.answers.keys() - self.settled)]
        missed = {address for message in messages for address in message.waiting_for}
        unsettled = {self.cluster.addresses[index] for index in self.cluster.others if index not in self.settled}
        return [address for address in self.cluster.addresses if address in (missed or unsettled)]

    def note(self, sent: _Message, received: _Message, address: str, expected: Container[int]) -> None:
        """Record an exchange, after its last byte was sent: TensorFlow may stop all threads next.

        Args:
            sent: the message of this worker.
            received: the message of the other worker.
            address: the address of the other worker.
            expected: the indices that the other worker may have.
        """
        with self.changed:
            if received.addresses != self.cluster.addresses or received.index not in expected:
                self.stranger = address
            elif not sent.waiting_for and not received.waiting_for:
                self.settled.add(received.index)
            self.changed.notify_all()

    def _keep_calling(self, index: int) -> None:
        while not self.left.is_set() and index not in self.settled:
            self._call(index)
            self.left.wait(PAUSE_SECONDS)

    def _call(self, index: int) -> None:
        sent, address = self.message(), self.cluster.addresses[index]
        try:
            received = _ask(address, sent)
        except (OSError, ValueError, TypeError):
            with self.changed:
                self.answers.pop(index, None)
            return
        with self.changed:
            self.answers[index] = received
            self.note(sent, received, address, [index])

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore callers that are not workers, and connections that break."""


class _Answer(socketserver.StreamRequestHandler):
    timeout = CALL_SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, _Meeting)
        received, sent = _Message.parse(self.rfile.readline(LINE_BYTES)), self.server.message()
        self.wfile.write(sent.line())
        self.server.note(sent, received, received.addresses[received.index], self.server.cluster.others)


def _ask(address: str, message: _Message) -> _Message:
    """Send a message to a worker, and return its answer.

    Raises:
        OSError, ValueError, TypeError: no worker waits at this address.
    """
    with socket.create_connection(host_and_port(address), CALL_SECONDS) as connection, connection.makefile("rb") as file:
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError  # nobody listens: the system chose that port for the connection itself
        connection.sendall(message.line())
        return _Message.parse(file.readline(LINE_BYTES))


@contextmanager
def signals_end_the_process() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the process at once in a `with` block: Python's handlers cannot run while C++ has the GIL.

    The handlers are restored afterwards. TensorFlow's server installs its own for SIGTERM when it has started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in ending if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
