"""The workers of a training wait for each other here, before TensorFlow's own rendezvous begins. No TensorFlow.

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

CALL_SECONDS = 10.0  # the longest that one connection to another worker may take
PAUSE_SECONDS = 0.2  # between two calls
LINE_BYTES = 2**20


def wait_for_workers(seconds: float, say: Callable[[str], object] | None = None) -> None:
    """Wait until every worker of TF_CONFIG has reached every other one; do nothing if this process trains alone.

    This worker listens on its own address and calls the others on theirs. Its port is free again when the function returns.

    Args:
        seconds: how long to wait.
        say: called with one line that names the addresses of the others.

    Raises:
        CharedgeError: a worker did not come, or has another TF_CONFIG; or this worker's port is taken.
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
    """What two workers send each other, as a line of JSON."""

    addresses: list[str]
    index: int
    waiting_for: list[str]
    """The addresses that did not answer the sender's last call."""

    def line(self) -> bytes:
        return json.dumps(vars(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> _Message:
        """
        Raises:
            ValueError, TypeError: the sender is not a waiting worker, but TensorFlow's server of a running training, for instance.
        """
        return cls(**json.loads(line))


class _Meeting(socketserver.ThreadingTCPServer):
    """One worker's part: a server that answers the others, a thread for each of them that calls it, and what they said.

    A worker is ready when each of the others answered its last call. It leaves when it has settled with each of them: in one
    exchange, whoever called, each told the other that it is ready. Both sides then know that the other needs no further
    answer, so a worker that leaves keeps nobody waiting.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, cluster: Cluster) -> None:
        """
        Raises:
            CharedgeError: the port is taken.
        """
        self.cluster = cluster
        self.changed = threading.Condition()
        self.answers: dict[int, _Message] = {}  # to the last call of each other worker
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
        """
        Raises:
            CharedgeError: the others have not all settled with this worker, or one of them has another TF_CONFIG.
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
        """What this worker sends the others now."""
        with self.changed:
            answered = self.answers.keys() | self.settled
            waiting_for = [self.cluster.addresses[index] for index in self.cluster.others if index not in answered]
        return _Message(self.cluster.addresses, self.cluster.index, waiting_for)

    def _missed(self) -> list[str]:
        """The addresses that do not answer this worker or one of those that answer it, in their order."""
        messages = [self.message(), *(self.answers[index] for index in self.answers.keys() - self.settled)]
        missed = {address for message in messages for address in message.waiting_for}
        unsettled = {self.cluster.addresses[index] for index in self.cluster.others if index not in self.settled}
        return [address for address in self.cluster.addresses if address in (missed or unsettled)]

    def note(self, mine: _Message, theirs: _Message, address: str, expected: Container[int]) -> None:
        """Take note of an exchange when nothing of it is left to send: TensorFlow may stop all threads next.

        Args:
            mine: what this worker sent.
            theirs: what the other one sent.
            address: the other one's.
            expected: the indices that it may have.
        """
        with self.changed:
            if theirs.addresses != self.cluster.addresses or theirs.index not in expected:
                self.stranger = address
            elif not mine.waiting_for and not theirs.waiting_for:
                self.settled.add(theirs.index)
            self.changed.notify_all()

    def _keep_calling(self, index: int) -> None:
        while not self.left.is_set() and index not in self.settled:
            self._call(index)
            self.left.wait(PAUSE_SECONDS)

    def _call(self, index: int) -> None:
        mine, address = self.message(), self.cluster.addresses[index]
        try:
            theirs = _ask(address, mine)
        except (OSError, ValueError, TypeError):
            with self.changed:
                self.answers.pop(index, None)
            return
        with self.changed:
            self.answers[index] = theirs
            self.note(mine, theirs, address, [index])

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore callers that are not workers, and connections that break."""


class _Answer(socketserver.StreamRequestHandler):
    timeout = CALL_SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, _Meeting)
        theirs, mine = _Message.parse(self.rfile.readline(LINE_BYTES)), self.server.message()
        self.wfile.write(mine.line())
        self.server.note(mine, theirs, theirs.addresses[theirs.index], self.server.cluster.others)


def _ask(address: str, message: _Message) -> _Message:
    """
    Raises:
        OSError, ValueError, TypeError: no worker waits there.
    """
    with socket.create_connection(host_and_port(address), CALL_SECONDS) as connection, connection.makefile("rb") as file:
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError  # nobody listens: the connection was given that very port, and leads to itself
        connection.sendall(message.line())
        return _Message.parse(file.readline(LINE_BYTES))


@contextmanager
def signals_end_the_process() -> Iterator[None]:
    """Let the system end the process on SIGINT, SIGTERM and SIGHUP meanwhile, as Python cannot while C++ holds its lock.

    TensorFlow's server takes SIGTERM for itself when it has started; afterwards the signals are handled as before.
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
