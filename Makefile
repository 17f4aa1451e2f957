# Everything sets itself up from a fresh clone; only python3 with pip and venv is needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-browser test-metadata test-devices test-gpu test-runtime wheels check bench bench-adaptation bench-server bench-runtime bench-training bench-profiles bench-growth bench-browser pictures
.PHONY: models quijote docs fuzz kills power-cuts deploy-cuts deploy-devices soak lm-eval clean

demo: .venv/installed
	$(BIN)/charedge demo

# All tests of a file run in one process, so that what they share is made once.
test: .venv/installed .venv-tflite/installed
	$(BIN)/pytest -m 'not slow' --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The tests that take longest.
test-slow: .venv/installed
	$(BIN)/pytest -m slow --numprocesses 2

# The tests of the runtime, in an install without TensorFlow.
test-runtime: .venv-runtime/installed
	.venv-runtime/bin/pytest --numprocesses 2 --dist loadfile tests/runtime

# The pages in Chromium, and model files in LiteRT.js: needs Debian's chromium and npm.
test-browser: .venv/browser-installed
	$(BIN)/pytest tests/browser

# Google's tflite-support reads our files: its display, its list of associated files and their content.
test-metadata: .venv/installed .venv-support/installed
	$(BIN)/python tests/model_files.py build/models
	.venv-support/bin/python tests/read_with_tflite_support.py build/models/*.tflite

# Tests a Raspberry Pi's wheels on emulated processors; needs Debian's apt. DEVICES=--smoke tests two devices in minutes.
test-devices: .venv/installed
	$(BIN)/python tests/devices/run.py $(DEVICES)

# Compares training on an NVIDIA GPU with the CPU; does nothing on a machine without one. GPU='--check speed' runs one of the checks.
test-gpu: .venv/installed $(if $(wildcard /dev/nvidia[0-9]* /usr/lib/wsl/lib/libcuda.so*),.venv/gpu-installed)
	$(BIN)/python tests/gpu.py $(GPU)

# One wheel for 64-bit systems, one for 32-bit ARM; setup.py explains why.
wheels: .venv/installed
	rm -rf dist
	for tag in any manylinux_2_34_armv7l; do rm -rf build/lib && \
		CHAREDGE_WHEEL=$$tag $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist . || exit 1; done

# Style and types. The type checker reads the package in its installed layout, with the other folders inside charedge/.
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/package
	for folder in charedge charedge/runtime charedge/runtime/server charedge/trainer charedge/converter charedge/deployer; do \
		mkdir -p build/package/$$folder && ln -s $(CURDIR)/$${folder#charedge/}/*.py build/package/$$folder/ || exit 1; done
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: .venv/installed
	$(BIN)/python benchmarks/step_loop.py

# Reading and writing without and with --adapt.
bench-adaptation: .venv/installed
	$(BIN)/python benchmarks/adaptation.py

# One client and thirty-two of `charedge serve`, against the plain step loop.
bench-server: .venv/installed
	$(BIN)/python benchmarks/server.py

bench-runtime: .venv-peers/installed
	.venv-peers/bin/python benchmarks/peers.py

bench-training: .venv-peers/installed
	.venv-peers/bin/python benchmarks/training.py
	.venv-peers/bin/python benchmarks/cpu_devices.py

# MODELS is files, or the folder of `charedge convert --all`: make bench-profiles MODELS=compared TEXT=runs/bard/held_out.txt
bench-profiles: .venv/installed .venv-tflite/installed
	mkdir -p build
	$(BIN)/python benchmarks/profiles.py $(MODELS) --text $(TEXT) --python .venv-tflite/bin/python --json build/profiles.json

bench-browser: .venv/browser-installed
	$(BIN)/python benchmarks/browser.py $(MODELS)

bench-growth: .venv/installed
	mkdir -p build
	$(BIN)/python benchmarks/growth.py --json build/growth.json

# Draws the results of models and bench-growth.
pictures: .venv/installed
	$(BIN)/python benchmarks/pictures.py build/figures build/growth.json

# Trains and measures the default model, that of the preset wide and the two of the package, as docs/training-experiments.md describes
# ("The protocol"), and puts the two into the package. Takes hours; continues if it was interrupted.
models: .venv/installed
	$(BIN)/python tools/train_models.py --install

# Trains a model of Don Quijote with its accents, in NFC: make quijote CORPUS=quijote.txt
quijote: .venv/installed
	$(BIN)/python tools/train_models.py quijote --corpus "$(or $(CORPUS),$(error give the text: make quijote CORPUS=quijote.txt))"

docs: .venv/installed
	$(BIN)/python docs/update_help.py

# Loads ten thousand damaged model files; SEED=2 damages them in other ways.
fuzz: .venv/installed
	$(BIN)/python tests/fuzz.py --count 10000 --seed $(or $(SEED),1)

# Kills twenty trainings at random moments, resumes them, and compares the weights with a training that was not killed.
kills: .venv/installed
	$(BIN)/python tests/kills.py --kills 20 --seed $(or $(SEED),1)

# Kills (-9) the service's program and `charedge generate` two hundred times while they save a session.
power-cuts: .venv/installed
	$(BIN)/python tests/power_cuts.py --cuts 200 --seed $(or $(SEED),1)

# Cuts the connection of fifty deployments to a device with a running service; needs OpenSSH's server.
deploy-cuts: .venv/installed
	$(BIN)/python tests/deploy_cuts.py --cuts 50 --seed $(or $(SEED),1)

# Deploys to emulated devices, with wheels that are carried; needs OpenSSH's server, and what test-devices needs.
deploy-devices: .venv/installed
	$(BIN)/python tests/deploy_devices.py $(DEVICES)

# Loads a server for ten minutes with everything that clients do, well or badly; SECONDS=60 for a minute.
soak: .venv/installed
	$(BIN)/python tests/soak.py --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

# EleutherAI's lm-evaluation-harness measures a server; its perplexity must be that of `charedge score`.
lm-eval: .venv/installed .venv-lm-eval/installed
	$(BIN)/python tests/lm_evaluation.py .venv-lm-eval/bin/lm_eval

# The workstation: TensorFlow, LiteRT and the tools.
.venv/installed: pyproject.toml setup.py
	@echo 'installing TensorFlow and the tools into .venv: 2.8 GB, some minutes in which pip prints nothing'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Adds CUDA's libraries, which take gigabytes.
.venv/gpu-installed: .venv/installed
	$(BIN)/pip install --quiet --editable '.[gpu]'
	touch $@

# Playwright without a browser of its own, and LiteRT.js; where npm is missing the tests of LiteRT.js say so.
.venv/browser-installed: .venv/installed
	$(BIN)/pip install --quiet 'playwright>=1.50,<2'
	mkdir -p build/litertjs
	npm install --silent --prefix build/litertjs @litertjs/core@2.5.3 || echo 'no npm: the tests of LiteRT.js will be skipped'
	touch $@

# tflite-runtime, the older interpreter. It has wheels up to Python 3.11; without it, its tests are skipped.
.venv-tflite/installed: pyproject.toml setup.py
	$(PYTHON) -m venv .venv-tflite
	.venv-tflite/bin/pip install --quiet --editable '.[tflite-runtime]' || echo 'no tflite-runtime for this Python: its tests will be skipped'
	touch $@

# The lean install of a device, and pytest.
.venv-runtime/installed: pyproject.toml setup.py
	$(PYTHON) -m venv .venv-runtime
	.venv-runtime/bin/pip install --quiet --editable '.[pattern]' 'pytest>=8' 'pytest-xdist>=3.5'
	touch $@

# tflite-support has wheels for Python 3.9 to 3.11 (PYTHON=python3.11), and on Debian it needs libusb-1.0-0.
.venv-support/installed: Makefile
	$(PYTHON) -m venv --clear .venv-support
	.venv-support/bin/pip install --quiet 'tflite-support==0.4.4' 'protobuf<4' 'numpy<2'
	touch $@

.venv-lm-eval/installed: Makefile
	$(PYTHON) -m venv .venv-lm-eval
	.venv-lm-eval/bin/pip install --quiet 'lm-eval[api]==0.4.13' 'transformers>=4.50'
	touch $@

# The other runtimes that the benchmarks compare with charedge.
.venv-peers/installed: pyproject.toml benchmarks/peers-requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --editable '.[train]' --requirement benchmarks/peers-requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-runtime .venv-tflite .venv-support .venv-peers .venv-lm-eval build dist *.egg-info
