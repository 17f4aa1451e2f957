"""What all requests of a server share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .errors import ApiError
from .metrics import Metrics
from .served import Served
from .sessions import SessionStore
from .settings import Settings


class Service:
    """A server's models, settings, sessions and figures.

    Attributes:
        models: by name; empty while they load.
        state: requests are answered while it is `ready`.
        sessions: None if there is no folder for them.
    """

    def __init__(self, settings: Settings, models: Mapping[str, Served] | None = None) -> None:
        """
        Args:
            settings: of the server.
            models: if they are loaded already.
        """
        self.settings = settings
        self.models: Mapping[str, Served] = {}
        self.state: Literal["loading", "ready", "draining"] = "loading"
        self.metrics = Metrics()
        folder = settings.sessions
        self.sessions = None if folder is None else SessionStore(folder, settings.max_sessions, settings.session_days)
        if models is not None:
            self.ready(models)

    def ready(self, models: Mapping[str, Served]) -> None:
        """Answer requests with these models from now on."""
        self.models = models
        if self.state == "loading":
            self.state = "ready"

    def find(self, name: str | None) -> Served:
        """The model that a request asks for.

        Raises:
            ApiError: it asks for none and there are several, or there is no such model.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        names = ", ".join(self.models)
        if name is None:
            raise ApiError(422, f"`model` is missing: choose one of {names}.", param="model", code="missing_field")
        if name not in self.models:
            raise ApiError(
                404, f"`model` {name!r} does not exist here: choose one of {names}.", param="model", code="model_not_found"
            )
        return self.models[name]

    def find_sessions(self, param: str | None = None) -> SessionStore:
        """The sessions.

        Raises:
            ApiError: there is no folder for them; 422 for a field, 404 for a path.
        """
        if self.sessions is None:
            message = "this server keeps no sessions: start it with a folder for them."
            message = f"`{param}` cannot be honoured: {message}" if param else message
            raise ApiError(422 if param else 404, message, param=param, code="no_sessions")
        return self.sessions
