"""What the device tests rely on; they themselves are `make test-devices`."""

import debian
import pytest
from conftest import REPOSITORY
from targets import NOT_RUN, SMOKE, SMOKE_FILES, TARGETS


def test_every_test_that_devices_leave_out_exists():
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests" / "runtime").glob("test_*.py"))
    for name in NOT_RUN:
        assert f"def {name}" in tests, name


def test_the_smoke_test_is_of_targets_and_files_that_there_are():
    assert set(SMOKE) <= {target.name for target in TARGETS}
    assert len({target.architecture for target in TARGETS if target.name in SMOKE}) == 2
    for name in SMOKE_FILES:
        assert (REPOSITORY / "tests" / "runtime" / name).exists(), name


def test_the_page_names_the_processor_of_every_target():
    page = (REPOSITORY / "docs" / "devices.md").read_text(encoding="utf-8")
    for target in TARGETS:
        assert f"Cortex-{target.processor.removeprefix('cortex-').upper()}" in page


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm", "http://mirror.example/debian"),
        ("deb [signed-by=/x.gpg] https://mirror.example/debian/ bookworm main", "https://mirror.example/debian/"),
        ("# deb http://old.example/debian bookworm main\ndeb http://other.example/tools x main", debian.DEFAULT_MIRROR),
        ("URIs: http://mirror.example/debian-security\nURIs: http://mirror.example/debian", "http://mirror.example/debian"),
        ("", debian.DEFAULT_MIRROR),
    ],
)
def test_the_archive_is_the_one_that_this_machines_apt_uses(sources, expected):
    assert debian.mirror(sources) == expected


def test_without_apt_the_program_says_so(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(SystemExit, match="need apt-get and dpkg-deb: run them on Debian"):
        debian.require_apt()
