"""What is decided about a device before it is changed, from what `look.sh` prints about it; and the wheels for it."""

import io
import re
import shutil
import zipfile

import pytest
from charedge.deployer.device import parse
from charedge.deployer.fetch import System
from charedge.deployer.plan import Request, choose_python, plan, steps
from charedge.deployer.wheel import ROOMS, own_wheel
from conftest import REPOSITORY

from charedge import CharedgeError

PI = {
    "system": "Linux",
    "machine": "aarch64",
    "package_architecture": "arm64",
    "word_bits": "64",
    "libc": "glibc 2.36",
    "user": "pi",
    "prefix": "/home/pi/.local/share/charedge",
    "memory_kib": "900000",
    "free_kib": "20000000",
    "writable": "1",
    "python": "3.11 64 1 1 - /usr/bin/python3",
}
PI_32 = PI | {"package_architecture": "armhf", "word_bits": "32", "python": "3.11 32 1 1 1.24.2 /usr/bin/python3"}
BOTH = frozenset(("ai-edge-litert", "tflite-runtime"))


def device(values, **changes):
    return parse("".join(f"{key}={value}\n" for key, value in (values | changes).items()))


def request(**changes):
    return Request(**{"name": "bard.tflite", "sha256": "1" * 64, "bytes": 950_588, "interpreters": BOTH, **changes})


@pytest.mark.parametrize(
    ("values", "machine"),
    [
        (PI, "aarch64"),
        (PI_32, "armv7l"),  # on a 64-bit kernel, which a Pi 4 starts
        (PI_32 | {"package_architecture": "", "machine": "armv8l"}, "armv7l"),
        (PI_32 | {"machine": "armv6l"}, "armv6l"),  # Raspberry Pi OS calls both armhf
        (PI | {"package_architecture": "", "machine": "x86_64"}, "x86_64"),
        (PI | {"package_architecture": "", "machine": "x86_64", "word_bits": "32"}, "i686"),
    ],
)
def test_the_architecture_is_that_of_the_systems_programs(values, machine):
    assert device(values).machine == machine


@pytest.mark.parametrize(
    ("values", "changes", "sentence"),
    [
        (PI, {"system": "Darwin"}, "charedge deploys to Linux, and this system is Darwin"),
        (PI_32, {"machine": "armv6l"}, "neither interpreter has wheels for ARMv6"),
        (PI, {"package_architecture": "riscv64", "machine": "riscv64"}, "there are no wheels for riscv64"),
        (PI, {"package_architecture": "i386"}, "there are no wheels for i686"),
        (PI, {"libc": "musl libc (aarch64)"}, "the interpreters' wheels need glibc, and this system has musl libc"),
        (PI, {"libc": "glibc 2.31"}, "glibc 2.31 is older than 2.34"),
        (PI, {"python": ""}, "there is no Python"),
        (PI, {"python": "3.9 64 1 1 - /usr/bin/python3"}, "charedge needs Python 3.10 to 3.14, and this system has 3.9"),
        (PI, {"python": "3.11 64 0 0 - /usr/bin/python3"}, "run `sudo apt install -y python3-venv` there"),
        (PI_32, {"python": "3.13 32 1 1 2.2.4 /usr/bin/python3"}, "tflite-runtime has no wheels after Python 3.11"),
        (PI_32, {"python": "3.11 32 1 1 - /usr/bin/python3"}, "run `sudo apt install -y python3-numpy` there"),
    ],
)
def test_what_cannot_run_charedge_is_refused_with_what_to_do(values, changes, sentence):
    with pytest.raises(CharedgeError) as error:
        choose_python(device(values, **changes), request())
    assert sentence in str(error.value)


def test_a_model_that_needs_litert_is_refused_on_a_32_bit_system():
    with pytest.raises(CharedgeError, match=r"needs ai-edge-litert, which has no wheels for armv7l.*`quantization` int8"):
        choose_python(device(PI_32), request(interpreters=frozenset(("ai-edge-litert",))))


def test_the_default_python_is_taken_and_another_one_only_where_it_must_be():
    text = "".join(f"{key}={value}\n" for key, value in PI.items())
    another = "python=3.12 64 1 1 - /usr/local/bin/python3.12\n"
    assert choose_python(parse(text + another), request()).path == "/usr/bin/python3"
    old = text.replace("3.11 64", "3.9 64")
    assert choose_python(parse(old + another), request()).path == "/usr/local/bin/python3.12"


def test_a_device_that_has_everything_needs_nothing():
    there = {"venv": "abc", "venv_wheel": "w", "venv_python": "3.11", "venv_extras": "", "model_sha256": "1" * 64}
    has_all = device(PI, **there)
    decided = plan(has_all, request(), "w")
    assert list(steps(decided, has_all, request())) == []
    for changes, wheel in (({"venv_python": "3.10"}, "w"), ({}, "x"), ({"unfinished": "1"}, "w"), ({"model_sha256": "2"}, "w")):
        lacks = device(PI, **(there | changes))
        assert list(steps(plan(lacks, request(), wheel), lacks, request())) != []


def test_too_little_space_and_a_folder_of_another_user_are_refused():
    with pytest.raises(CharedgeError, match=r"has 102 MB free at /home/pi/\.local/share/charedge, and 217 MB are needed"):
        plan(device(PI, free_kib="100000"), request(), "w")
    plan(device(PI_32, free_kib="100000"), request(), "w")
    with pytest.raises(CharedgeError, match="cannot be written by pi: choose another folder with `prefix`"):
        plan(device(PI, writable="0"), request(), "w")


def test_the_carried_wheels_are_those_that_the_devices_pip_takes():
    tags = System("aarch64", (2, 36), (3, 11), has_numpy=False, has_pip=True).tags
    assert (tags[0], tags[-1]) == ("manylinux_2_36_aarch64", "manylinux2014_aarch64")
    assert "manylinux_2_34_aarch64" in tags
    assert "manylinux_2_37_aarch64" not in tags


@pytest.mark.parametrize(("machine", "tag"), [("aarch64", "any"), ("x86_64", "any"), ("armv7l", "manylinux_2_34_armv7l")])
def test_our_wheel_is_that_of_setup_py(machine, tag):
    wheel = own_wheel(machine)
    assert wheel.content == own_wheel(machine).content
    assert wheel.name.endswith(f"-py3-none-{tag}.whl")
    text = (REPOSITORY / "setup.py").read_text()
    (typer,) = re.findall(r'^TYPER = "(.+?)"', text, re.MULTILINE)
    lists = [re.findall(r'"(.+?)"', line) for line in re.findall(r"install_requires=\[TYPER, (.+?)\]", text)]
    assert list(wheel.requirements) == [typer, *lists[tag == "any"]]
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        names = set(archive.namelist())
    for room in ROOMS:
        for path in (REPOSITORY / room).rglob("*.py"):
            assert f"charedge/{path.relative_to(REPOSITORY).as_posix()}" in names
    assert {"charedge/__init__.py", "charedge/py.typed", "charedge/runtime/models/shakespeare-tiny.tflite"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_wheels_that_another_process_has_fetched_meanwhile_are_taken(monkeypatch, tmp_path):
    from charedge.deployer import fetch

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    system = System("aarch64", (2, 36), (3, 11), has_numpy=False, has_pip=True)
    monkeypatch.setattr(fetch, "_download", lambda _, requirements, folder: (folder / "numpy.whl").write_bytes(b"ours"))
    (wheel,) = fetch.fetch_wheels(system, own_wheel("aarch64"), frozenset())
    shutil.rmtree(wheel.parent)

    def download(_, requirements, folder):
        wheel.parent.mkdir()
        wheel.write_bytes(b"theirs")
        (folder / "numpy.whl").write_bytes(b"ours")

    monkeypatch.setattr(fetch, "_download", download)
    assert fetch.fetch_wheels(system, own_wheel("aarch64"), frozenset()) == [wheel]
    assert wheel.read_bytes() == b"theirs"
    assert list(wheel.parent.parent.iterdir()) == [wheel.parent]
