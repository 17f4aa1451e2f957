"""Serving: the address, uvicorn, the models that load meanwhile, and the signals that end it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from ..errors import CharedgeError
from ..interrupts import HANGUP, Interrupted
from .app import create_app
from .connection import MAX_HEAD, Connection
from .served import Served, load_models, names_of
from .service import Service
from .settings import Settings

GRACE_SECONDS = 10.0
"""How long running requests have after the first signal, until their texts are ended."""
CLOSE_SECONDS = 5
"""How long the last bytes of their answers have after that."""
TICK_SECONDS = 0.05
SWITCH_SECONDS = 0.0005
"""How long a thread may keep others from running: the event loop need not wait long for the engines."""
BACKLOG = 128

log = logging.getLogger(__name__)


def serve(
    paths: Sequence[Path],
    settings: Settings,
    *,
    threads: int = 1,
    interpreter: str | None = None,
    announce: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve models until a signal ends it: SIGTERM returns, after the running requests.

    Args:
        paths: the model files.
        settings: of the server.
        threads, interpreter: as for `charedge.load`.
        announce: called with the address once requests are answered, also while the models still load.

    Raises:
        InvalidOption, CharedgeError: the address cannot be used, or a model cannot be loaded.
        Interrupted: another signal than SIGTERM ended it.
    """
    names_of(paths)
    service = Service(settings)
    sys.setswitchinterval(SWITCH_SECONDS)
    with listening_socket(settings) as listener:
        server = Server(service, lambda: load_models(paths, settings, threads, interpreter))
        announce(_address(listener))
        asyncio.run(server.serve([listener]))
    if server.error is not None:
        raise server.error
    if server.signal not in (None, signal.SIGTERM):
        raise Interrupted(server.signal)


class Server(uvicorn.Server):
    """uvicorn, which loads the models when it has started, and ends their texts before it stops.

    Attributes:
        error: why it could not start.
        signal: that ended it.
    """

    def __init__(self, service: Service, load: Callable[[], Mapping[str, Served]]) -> None:
        """
        Args:
            service: what the app shares.
            load: returns the models by name.
        """
        super().__init__(
            uvicorn.Config(
                create_app(service),
                loop="asyncio",
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self.error: Exception | None = None
        self.signal: int | None = None
        self._service, self._load = service, load
        self._at_once = False
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        self._tasks.append(asyncio.create_task(self._load_models()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it is to end."""
        await super().shutdown(sockets)
        await asyncio.gather(*self._tasks)
        for served in self._service.models.values():
            await asyncio.to_thread(served.engine.close)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn, whose own version would send the signals again at the end."""
        loop = asyncio.get_running_loop()
        heeded = [
            number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number and signal.getsignal(number) != signal.SIG_IGN
        ]
        if threading.current_thread() is not threading.main_thread():
            heeded = []
        for number in heeded:
            loop.add_signal_handler(number, self.stop, number)
        yield
        for number in heeded:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # the process is about to end: another one would only change its status

    def stop(self, number: int) -> None:
        """Begin to stop; the second signal ends the texts at once."""
        if self.signal is not None:
            self._at_once |= number != HANGUP  # a closed connection sends several
            return
        self.signal = number
        self._service.state = "draining"
        self._tasks.append(asyncio.create_task(self._drain()))

    async def _drain(self) -> None:
        """Let the running requests go on for a while, then end their texts."""
        loop = asyncio.get_running_loop()
        end = loop.time() + GRACE_SECONDS
        while self.server_state.tasks and loop.time() < end and not self._at_once:
            await asyncio.sleep(TICK_SECONDS)
        for served in self._service.models.values():
            served.engine.end_texts()
        self.should_exit = True

    async def _load_models(self) -> None:
        try:
            self._service.ready(await asyncio.to_thread(self._load))
        except Exception as error:
            self.error = error
            self.should_exit = True
            return
        log.info("the models are loaded: %s", ", ".join(self._service.models))


@contextmanager
def listening_socket(settings: Settings) -> Iterator[socket.socket]:
    """The socket of the address.

    Raises:
        CharedgeError: the address does not exist here, or is in use.
    """
    try:
        infos = socket.getaddrinfo(settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise CharedgeError(f"`host` {settings.host} is not an address or a name of this machine: give another one.") from None
    family, kind, protocol, _, address = infos[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            message = f"`port` {settings.port} of {settings.host} cannot be used ({error.strerror}): give another one."
            raise CharedgeError(message) from None
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
