# Everything sets itself up from a fresh clone; only python3 with pip and venv is needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench clean

demo: .venv/installed
	$(BIN)/charedge demo

test: .venv/installed .venv-tflite/installed
	$(BIN)/pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: .venv/installed
	$(BIN)/python benchmarks/step_loop.py

# The workstation: TensorFlow, LiteRT and the tools.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# A device with the older interpreter, which has wheels for Python 3.11 at most; where it cannot be had its tests say so.
.venv-tflite/installed: pyproject.toml
	$(PYTHON) -m venv .venv-tflite
	.venv-tflite/bin/pip install --quiet --editable '.[tflite-runtime]' || echo 'no tflite-runtime for this Python: its tests will be skipped'
	touch $@

clean:
	rm -rf .venv .venv-tflite build dist *.egg-info
