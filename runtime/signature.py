"""Signatures of model files in OpenSSH's format (SSHSIG), made and checked by `ssh-keygen`.

A signature lies beside its file, as `MODEL.tflite.sig`. It is over the whole file, in the namespace `charedge`, so that a signature
that the same key made for something else does not count.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .errors import CharedgeError, InvalidOption

NAMESPACE = "charedge"


def signature_of(model: Path) -> Path:
    """The place of a model file's signature."""
    return model.with_name(f"{model.name}.sig")


def check_signature(model: Path, signature: Path, allowed_signers: Path) -> str:
    """Check that one of the allowed signers has signed a model file.

    Args:
        model: the file.
        signature: made by `ssh-keygen -Y sign -n charedge`.
        allowed_signers: in the format of ssh-keygen(1), section ALLOWED SIGNERS.

    Returns:
        The signer's name in `allowed_signers`.

    Raises:
        InvalidOption: the file of allowed signers cannot be read.
        CharedgeError: there is no signature, nobody who is allowed made it, or the file was changed afterwards.
    """
    if not allowed_signers.is_file():
        raise InvalidOption("allowed_signers", f"{allowed_signers} is not a file: give a file as ssh-keygen(1) describes it.")
    if not signature.is_file():
        raise CharedgeError(f"{model} has no signature {signature}: sign it, or give the file with `signature`.")
    found = run_ssh_keygen("find-principals", "-s", signature, "-f", allowed_signers)
    signers = found.stdout.decode("utf-8", "replace").splitlines()
    if found.returncode or not signers:
        raise CharedgeError(f"{signature} was made by nobody whom {allowed_signers} allows: do not use {model}.")
    verified = run_ssh_keygen(
        "verify", "-n", NAMESPACE, "-f", allowed_signers, "-I", signers[0], "-s", signature, content=model.read_bytes()
    )
    if verified.returncode:
        raise CharedgeError(f"{signature} is not a signature of {model} as it is: do not use it, or let it be signed again.")
    return signers[0]


def run_ssh_keygen(action: str, *arguments: object, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run `ssh-keygen -Y ACTION`, with `content` as its stdin.

    Raises:
        CharedgeError: there is no ssh-keygen.
    """
    if shutil.which("ssh-keygen") is None:
        raise CharedgeError("signatures need ssh-keygen: install OpenSSH's client (Debian: `apt install openssh-client`).")
    return subprocess.run(["ssh-keygen", "-Y", action, *map(str, arguments)], input=content, capture_output=True, check=False)
