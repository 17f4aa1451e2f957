"""Make a model file with random weights for every quantisation and cell, for programs that are not Python tests.

python tests/make_models.py FOLDER
"""

import sys
from pathlib import Path

from charedge.converter.quantization import PROFILES
from conftest import build_model_file

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for quantization in PROFILES:
    build_model_file(folder / f"gru-{quantization}.tflite", quantization)
    build_model_file(folder / f"lstm-{quantization}.tflite", quantization, cell="lstm", layers=2)
