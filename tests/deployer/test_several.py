"""Several devices at once, and signatures."""

import json
import shutil
import subprocess

from ssh_device import make_key, sha256

NAME = "bard.tflite"


def test_one_device_that_fails_does_not_affect_the_others(installed, second, deploy, tmp_path):
    installed.device.client("closed", Port=1)
    more = tmp_path / "targets.txt"
    more.write_text("# the other ones\n\nclosed\nsecond\n")
    result = deploy(installed.new, "--targets", more)
    assert result.status == 1
    lines = result.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["device: deployed", "second: deployed"]
    assert "charedge: closed: ssh cannot connect" in result.stderr
    assert result.stderr.endswith("charedge: 1 of 3 devices failed: see the lines above.\n")
    for models in (installed.device.models, second / "models"):
        assert sha256(models / NAME) == sha256(installed.new)

    again = deploy(installed.new, "--json", to=("second", "closed", "device"))
    assert again.status == 1
    devices = json.loads(again.stdout)["devices"]
    assert [(entry["target"], entry["status"]) for entry in devices] == [
        ("second", "unchanged"),
        ("closed", "failed"),
        ("device", "unchanged"),
    ]


def test_a_device_that_is_given_twice_is_refused(deploy, ssh_device, model):
    result = deploy(model.path, to=("device", "other", "device"))
    assert (result.status, "TARGET device is given twice: leave one out." in result.stderr) == (2, True)


def test_a_signed_model_is_checked_here_and_there(installed, deploy, charedge, tmp_path):
    device, key, stranger = installed.device, make_key(tmp_path / "key"), make_key(tmp_path / "stranger")
    unsigned = deploy(installed.new, "--verify-key", f"{key}.pub")
    assert (unsigned.status, f"has no signature {installed.new}.sig: sign it with --sign" in unsigned.stderr) == (1, True)

    signed = deploy(installed.new, "--sign", key, "--verify-key", f"{key}.pub")
    assert signed.status == 0, signed.stderr
    there = device.models / f"{NAME}.sig"
    allowed = device.prefix / "allowed_signers"
    checked = charedge("verify", device.models / NAME, "--allowed-signers", allowed)
    assert (checked.status, "signed by    signer" in checked.stdout) == (0, True)
    command = ["ssh-keygen", "-Y", "verify", "-n", "charedge", "-f", allowed, "-I", "signer", "-s", there]
    subprocess.run([*map(str, command)], stdin=(device.models / NAME).open("rb"), check=True, capture_output=True)

    wrong = deploy(installed.new, "--verify-key", f"{stranger}.pub")
    assert (wrong.status, "was made by nobody whom" in wrong.stderr) == (1, True)
    shutil.copy(f"{installed.new}.sig", f"{installed.old}.sig")
    swapped = deploy(installed.old, "--verify-key", f"{key}.pub")
    assert (swapped.status, "is not a signature of" in swapped.stderr) == (1, True)
    assert sha256(device.models / NAME) == sha256(installed.new)


def test_verify_refuses_what_no_allowed_signer_has_signed(charedge, model, tmp_path):
    key = make_key(tmp_path / "key")
    file = shutil.copy(model.path, tmp_path / NAME)
    signers = tmp_path / "signers"
    signers.write_text(f'ann@example.com namespaces="charedge" {key.with_suffix(".pub").read_text()}')
    signature = tmp_path / "elsewhere.sig"

    def sign(namespace):
        command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(key)]
        signature.write_bytes(subprocess.run(command, input=model.path.read_bytes(), capture_output=True, check=True).stdout)
        return charedge("verify", file, "--allowed-signers", signers, "--signature", signature, "--json")

    good = sign("charedge")
    assert json.loads(good.stdout)["signer"] == "ann@example.com"
    for result in (
        sign("file"),  # a signature for another purpose does not count
        charedge("verify", file, "--allowed-signers", signers),
    ):
        assert result.status == 1
        assert "signature" in result.stderr
    assert charedge("verify", file, "--allowed-signers", tmp_path / "none").status == 2
    assert charedge("verify", file, "--signature", signature).status == 2


def test_keys_that_cannot_be_used_are_refused(deploy, model, tmp_path):
    file = shutil.copy(model.path, tmp_path / NAME)
    (tmp_path / "text.pub").write_text("hello")
    for options, message in (
        (("--sign", tmp_path / "none"), "--sign"),
        (("--verify-key", tmp_path / "text.pub"), "--verify-key"),
        (("--targets", tmp_path / "none"), "--targets"),
    ):
        result = deploy(file, *options, to=("nowhere.invalid",))
        assert result.status == 2
        assert message in result.stderr
