"""Signatures of a deployment: made here with the user's own ssh key, checked here before the copy and on the device after it."""

from __future__ import annotations

import re
from pathlib import Path

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.files import write_atomically
from ..runtime.signature import NAMESPACE, run_ssh_keygen, signature_of

PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk)-[\w@.-]+ [A-Za-z0-9+/=]+")
SIGNER = "signer"
"""The name of the one signer in the file that `allowed_signers_for` makes."""


def sign(model: Path, key: Path) -> Path:
    """Sign a model file, as MODEL.sig beside it.

    Args:
        model: the file.
        key: a private key, or a public one whose private key an agent holds.

    Returns:
        The signature's file.

    Raises:
        InvalidOption: ssh-keygen does not take the key.
        CharedgeError: the signature cannot be written.
    """
    result = run_ssh_keygen("sign", "-n", NAMESPACE, "-f", key, content=model.read_bytes())
    if result.returncode:
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines() or ["ssh-keygen failed"]
        raise InvalidOption("sign", f"{key} cannot sign ({lines[-1].rstrip('.')}): give a private key, or one that an agent holds.")
    signature = signature_of(model)
    try:
        write_atomically(signature, result.stdout)
    except OSError as error:
        raise CharedgeError(f"{signature} cannot be written ({error.strerror}): copy the model to another folder.") from None
    return signature


def allowed_signers_for(public_key: Path) -> str:
    """The file of allowed signers that allows one key, and only for model files.

    Raises:
        InvalidOption: it is not a public key.
    """
    try:
        found = PUBLIC_KEY.match(public_key.read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        found = None
    if found is None:
        raise InvalidOption("verify_key", f"{public_key} is not a public key of ssh: give the file that ends in .pub.")
    return f'{SIGNER} namespaces="{NAMESPACE}" {found[0]}\n'
