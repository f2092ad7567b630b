# Everything works on a fresh clone with Python >= 3.11 and make, and leaves the user's system alone.
#
#   make demo      profile this machine, search under a limit, measure what was found
#   make test      the tests; EXTRAS=dev,openvino,parquet,tflite,train adds those that need more
#   make lint      formatting, style, types, import rules, and the agent's Python 3.6 syntax
#   make matrix    the agent's tests with agents on every Python that is found
#   make test-slow what takes long: large packages, long training, another processor emulated
#   make bench     how fast pricing, search and lowering are here
#   make bench-gpu tests and comparisons of the CUDA runtimes, on a machine with an NVIDIA GPU; see scripts/bench_gpu.py
#   make protocol  compile the protocol, after a change to agent.proto

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
EXTRAS ?= dev
WORKERS ?= 4
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
BIN := .venv/bin
comma := ,
BASE_INSTALLED := .venv/installed
EXTRAS_INSTALLED := .venv/installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: demo test test-slow matrix lint bench bench-gpu bench-gpu-bundle protocol clean

demo: $(BASE_INSTALLED)
	$(BIN)/python scripts/demo.py

test: $(EXTRAS_INSTALLED)
	mkdir -p build
	$(ONE_THREAD) PYTEST_DEBUG_TEMPROOT=build $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow and not serial"
	PYTEST_DEBUG_TEMPROOT=build $(BIN)/pytest --durations 10 -m "serial and not slow"

test-slow: $(EXTRAS_INSTALLED)
	mkdir -p build
	PYTEST_DEBUG_TEMPROOT=build $(BIN)/pytest -m slow

matrix: $(EXTRAS_INSTALLED)
	$(BIN)/python scripts/matrix.py

lint: $(EXTRAS_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --violations --target=3.6- --eval-annotations agents

bench: $(BASE_INSTALLED)
	$(BIN)/python scripts/bench.py
	$(BIN)/python scripts/lowering.py

bench-gpu-bundle: $(BASE_INSTALLED)
	$(BIN)/python scripts/gpu_bundle.py

# Without .venv and without internet: the machine's own Python has PyTorch and ONNX Runtime, and wheels are only unpacked.
GPU_PYTHON ?= $(shell for python in python3 python; do $$python -c 'import torch' 2>/dev/null && echo $$python && break; done)
GPU_PACKAGES := $(CURDIR)/build/gpu-packages
bench-gpu:
	@test -n "$(GPU_PYTHON)" || { echo "no Python here has PyTorch; name one with make bench-gpu GPU_PYTHON=/path/to/python"; exit 1; }
	mkdir -p $(GPU_PACKAGES)
	for wheel in build/gpu-wheels/*.whl; do test ! -e "$$wheel" || $(GPU_PYTHON) -m zipfile -e "$$wheel" $(GPU_PACKAGES); done
	PYTHONPATH=agents:tables:ofa:profiler:$(GPU_PACKAGES) $(GPU_PYTHON) scripts/bench_gpu.py $(GPU_OPTIONS)

protocol: $(EXTRAS_INSTALLED)
	$(BIN)/python -m grpc_tools.protoc --proto_path=agents/ofa_agent/protocol --include_imports \
		--descriptor_set_out=agents/ofa_agent/protocol/protocol.binpb agents/ofa_agent/protocol/agent.proto agents/ofa_agent/protocol/health.proto

clean:
	rm -rf .venv build dist

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 was found; name one with make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv

$(BASE_INSTALLED): pyproject.toml constraints.txt .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(EXTRAS_INSTALLED): $(BASE_INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
