"""Debian packages of other architectures and releases: fetched by the apt of this machine, and unpacked into a folder.

apt is given folders of its own, so that neither root nor a change to this system is needed; its mirror is the one that this machine
is set up with.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_MIRROR = "http://deb.debian.org/debian"
HOST_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def require_apt() -> None:
    """
    Raises:
        SystemExit: this is no machine that can fetch Debian packages.
    """
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing or not KEYRING.exists():
        sys.exit(
            f"the device tests need {' and '.join(missing) or KEYRING}: run them on Debian, or on a system with the packages "
            "apt, dpkg and debian-archive-keyring."
        )


def mirror(sources: str) -> str:
    """The archive that an apt is set up with, by its lists of sources in either style; without one, Debian's own."""
    lines = [line for line in sources.splitlines() if not line.lstrip().startswith("#")]
    found = re.search(r"\S+://\S+/debian/?(?=\s|$)", "\n".join(lines))
    return found.group() if found else DEFAULT_MIRROR


def own_sources() -> str:
    """What this machine's apt is set up with."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return "\n".join(path.read_text() for path in files if path.suffix in (".list", ".sources") and path.exists())


def unpack(folder: Path, suite: str, architecture: str, packages: Sequence[str], dependencies: bool = True) -> None:
    """Fetch packages and unpack them into a folder, unless it has them already.

    Args:
        folder: becomes the root of a file system; what apt keeps lies beside it.
        dependencies: whether what the packages depend on comes too.

    Raises:
        SystemExit: apt failed; its own words are on stderr.
    """
    stamp, wanted = folder.with_suffix(".packages"), " ".join(packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    state = folder.with_suffix(".apt")
    fetched = _fetch(state, suite, architecture, packages, dependencies)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for package in fetched:
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    _complete(folder)
    shutil.rmtree(state)
    stamp.write_text(wanted)


def _fetch(state: Path, suite: str, architecture: str, packages: Sequence[str], dependencies: bool) -> list[Path]:
    """Download packages with an apt of our own."""
    archive = mirror(own_sources())
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "debian.list").write_text(f"deb [signed-by={KEYRING}] {archive} {suite} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "",
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "debian.list",
        "Dir::Etc::sourceparts": "/dev/null",
    }
    options = [f"-o{key}={value}" for key, value in settings.items()]
    folder = state / "cache" / "archives"
    download = ["install", "--yes", "--no-install-recommends", "--download-only"] if dependencies else ["download"]
    for arguments in (["update"], [*download, *packages]):
        command = ["apt-get", "--quiet", "--quiet", *options, *arguments]
        if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(f"`apt-get {arguments[0]}` for {suite} {architecture} failed: is {archive} in reach?")
    return sorted(folder.glob("*.deb"))


def _complete(folder: Path) -> None:
    """What the packages' scripts would do: a merged /usr, and BLAS where programs look for it."""
    for name in ("bin", "lib", "sbin"):
        if not (folder / name).exists():
            (folder / name).symlink_to(f"usr/{name}")
    for path in [*folder.glob("usr/lib/*/blas/lib*.so.*"), *folder.glob("usr/lib/*/lapack/lib*.so.*")]:
        link = path.parent.parent / path.name
        if not link.exists():
            link.symlink_to(path.relative_to(link.parent))


def fetch_qemu(folder: Path) -> None:
    """Unpack qemu's programs for foreign binaries, those from trixie: bookworm's 7.2 crashes on LiteRT.

    Raises:
        SystemExit: Debian has none for this machine.
    """
    architecture = HOST_ARCHITECTURES.get(platform.machine())
    if architecture is None:
        sys.exit(f"the device tests know no qemu for {platform.machine()}: run them on x86-64 or 64-bit ARM.")
    unpack(folder, "trixie", architecture, ["qemu-user"], dependencies=False)
