"""The configuration of a training that a test does not start from a text."""

from charedge.trainer.config import OPTIONS, Config, settings

RECORDED = {"corpus": {"files": [], "characters": 0, "sha256": ""}, "unknown": "skip", "versions": {}}


def make_config(preset="base", **options):
    """A preset's configuration in float32, with some fields of `Config` changed."""
    given = {name: value for name, value in options.items() if name in OPTIONS}
    records = {name: value for name, value in options.items() if name not in OPTIONS}
    return Config(**settings(preset, {"precision": "float32", **given}), **{**RECORDED, **records})
