"""The model file as it is in LiteRT.js."""

import json

import numpy as np
import pytest
import reference
from charedge.runtime.model_file import read_model_file

from .litert_js import PACKAGES, READY, served


@pytest.mark.skipif(not PACKAGES.is_dir(), reason="LiteRT.js is not installed: run `make test-browser`, which needs npm")
@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "int8-static"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_it_takes_the_file_as_it_is_and_the_probe_comes_out_as_recorded(chromium, models, cell, quantization):
    model = models(quantization=quantization, cell=cell, layers=2)
    manifest = read_model_file(model.path).manifest
    ids = manifest.probe.token_ids
    page = chromium.new_page()
    with served(model.path) as address:
        page.goto(address)
        page.wait_for_function(READY)
        logits = page.evaluate(f"logitsAfter({json.dumps(ids[:-1])}, {manifest.state_size})")
    page.close()
    nats = -reference.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].mean()
    assert nats == pytest.approx(manifest.probe.nats_per_character, abs=manifest.probe.tolerance)
