"""The deployer from Python: `charedge.deploy`."""

from __future__ import annotations

from ..runtime.paths import StrPath, path_argument
from ..runtime.progress import Progress, no_progress
from .deploy import PREFIX, Options, prepare
from .deploy import deploy as deploy_to
from .report import Deployment
from .service import DEFAULT_PORT
from .ssh import Target


def deploy(
    target: str,
    model: StrPath,
    *,
    ssh_port: int | None = None,
    identity: StrPath | None = None,
    jump: str | None = None,
    prefix: str = PREFIX,
    service: str | None = None,
    service_port: int = DEFAULT_PORT,
    system: bool = False,
    offline: bool = False,
    sign: StrPath | None = None,
    verify_key: StrPath | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Deployment:
    """Install charedge and a model on a device over ssh, or update them.

    Args:
        target: `[USER@]HOST`, or a name of ssh's configuration.
        model: a file made by `charedge.convert`.
        ssh_port: port of ssh; None is ssh's own.
        identity: private key for ssh; None is ssh's own.
        jump: a machine to connect through, as `target`; None is ssh's own.
        prefix: folder on the device: absolute, beginning with `~/`, or in the home folder.
        service: `serve` or `ticker` runs the model as a systemd service, `none` removes it, None leaves it as it is.
        service_port: port of `serve` on the device's 127.0.0.1.
        system: make it a service of the system, with sudo, and not of the user.
        offline: fetch the wheels here and carry them, even if the device has a network.
        sign: ssh key that signs the model.
        verify_key: public key that must have signed the model.
        dry_run: only look at the device, and return what would be done.
        progress: called with reports.

    Returns:
        What was done, and the figures there and here.

    Raises:
        InvalidOption: an argument has a value that it cannot have.
        CharedgeError: it failed; what ran on the device before still runs there.
    """
    device = Target(target, ssh_port, None if identity is None else path_argument("identity", identity), jump)
    key = None if verify_key is None else path_argument("verify_key", verify_key)
    options = Options(prefix, service, service_port, system, offline, key, dry_run)
    local = prepare(model, None if sign is None else path_argument("sign", sign), key)
    return deploy_to(device, local, options, progress)
