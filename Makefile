# Each target sets up what it needs, in a virtual environment of its own: .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := test
# Tests at a time, one a core: most of what they do is one thread of Python.
JOBS ?= 2

# Real data for the tests that want it; without it they are skipped and say so.
ifndef NNUNETV2_LIGHTM_DATA
ifneq ($(wildcard ../shared/data),)
export NNUNETV2_LIGHTM_DATA := $(CURDIR)/../shared/data
endif
endif
# By default nnU-Net starts 8 worker processes for a training and 6 for a prediction, each of which imports PyTorch: too
# many for a laptop.
export nnUNet_n_proc_DA ?= 2
export nnUNet_def_n_proc ?= 2
export nnUNet_npp ?= 1
export nnUNet_nps ?= 1
# Threads that wait do not spin: on few cores they would keep the worker processes from running.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install demo web-demo test test-fast test-slow compat sanitize wheels prove release docs lint campaigns bench gpu-wheels clean

help:
	@echo "make demo   train and evaluate on generated phantoms, ending with a table and a picture"
	@echo "make web-demo  the same, then its model as one page that segments in a browser, from disk"
	@echo "make test   run all tests, two at a time (JOBS=2)"
	@echo "make test-fast  run the tests that take seconds each: five minutes on two cores"
	@echo "make compat  install into clean environments: oldest and newest Python, each nnunetv2; downloads GBs, 20 minutes"
	@echo "make sanitize  run the tests of the compiled library with GCC's sanitizers: addresses, undefined behaviour, races"
	@echo "make wheels  build the source distribution and wheels for Linux, macOS and Windows into dist/, with Zig from PyPI"
	@echo "make prove  run the compiled libraries of all platforms that this machine can run: natively, in QEMU, in Wine"
	@echo "make release  everything before a release: version, changelog, wheels, prove"
	@echo "make docs   build the documentation site into docs/_build/html"
	@echo "make campaigns  kill -9 at 50 random moments of a conversion, a training and a comparison; an hour or more"
	@echo "make lint   check style"
	@echo "make bench  compare speed and memory with nnU-Net's network and other scans, about half an hour"
	@echo "make gpu-wheels  what the check on a GPU needs, into .whl, for a machine without a network"
	@echo "make clean  remove the virtual environment and what was built"

install: $(STAMP)

# The tests run on what was compiled: a change of the C++ compiles it again.
BUILT_FROM := pyproject.toml setup.py native_build.py project_page.py runtime/pyproject.toml runtime/setup.py \
	nnunetv2_lightm/ops/backends/native_interface.py runtime/lightm_runtime/engine_file.py \
	$(wildcard nnunetv2_lightm/ops/csrc/*.cpp nnunetv2_lightm/ops/csrc/*.hpp runtime/src/*.cpp runtime/src/*.hpp runtime/src/*.h)

$(STAMP): $(BUILT_FROM) | $(BIN)/pip
	$(BIN)/python -m pip install --editable '.[$(EXTRAS)]'
	@$(BIN)/python -m pip install --quiet --editable ./runtime || { test "$$NNUNETV2_LIGHTM_REQUIRE_COMPILED" != 1 && \
		echo "lightm-runtime was not installed (the reason is above); it needs a C++17 compiler. Everything else works; its tests are skipped."; }
	@touch $@

# The last file that a complete environment gets.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.10 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1). Choose one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

demo: $(STAMP)
	$(BIN)/nnUNetv2_lightm demo

DEMO := nnunetv2_lightm_demo
web-demo: demo
	@$(BIN)/python -c 'import ziglang' 2>/dev/null || $(BIN)/python -m pip install --editable '.[web]'
	@nnUNet_raw=$(DEMO)/nnUNet_raw nnUNet_preprocessed=$(DEMO)/nnUNet_preprocessed nnUNet_results=$(DEMO)/nnUNet_results \
		$(BIN)/nnUNetv2_lightm export --web --overwrite $(DEMO)/nnUNet_results/Dataset801_LiTS/nnUNetTrainerLightMUNet_15epochs_20iters__nnUNetPlans_demo__3d_fullres \
		$(DEMO)/model.html
	@echo "Drop one of these on it: $(DEMO)/nnUNet_raw/Dataset801_LiTS/imagesTs/"

# The other core has a test of its own.
test test-slow test-fast: export nnUNet_n_proc_DA := 1
test test-slow test-fast: export nnUNet_def_n_proc := 1

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

# The others: they train, predict, compile or install.
test-slow: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "end_to_end or slow"

# Most of what can break, in minutes: nothing that trains, predicts, compiles or installs.
test-fast: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "not end_to_end and not slow"

compat: $(STAMP)
	$(BIN)/python tests/end_to_end/compat.py $(if $(wildcard dist/*.whl),--wheels dist) $(COMPAT)

sanitize: $(STAMP)
	PYTHON=$(BIN)/python tests/sanitizers.sh

# One Linux machine builds for all platforms. `make prove` runs what it can: apt install qemu-user libc6-arm64-cross wine
wheels prove release: EXTRAS := test,release
wheels prove release: $(STAMP)
	@$(BIN)/python -c 'import ziglang, lief, build' 2>/dev/null || $(BIN)/python -m pip install --editable '.[release]'
	$(BIN)/python -m release.$@

# Strict: a broken link or docstring fails. Without a network; the search works from disk.
docs: EXTRAS := test,docs
docs: $(STAMP)
	@$(BIN)/python -c 'import furo' 2>/dev/null || $(BIN)/python -m pip install --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

campaigns: $(STAMP)
	$(BIN)/python tests/campaigns/kill9.py convert
	$(BIN)/python tests/campaigns/kill9.py train
	$(BIN)/python tests/campaigns/kill9.py benchmark

# Needs nothing but ruff, of the version that pyproject.toml names.
$(BIN)/ruff: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet "$$(sed -n 's/^ *"\(ruff==.*\)",$$/\1/p' pyproject.toml)"
	@touch $@

lint: $(BIN)/ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# On a fresh clone the rival comes with the one installation; otherwise it is added to the one there is. The benchmarks run
# with what a user gets by default, so without the waiting policy from above.
bench: EXTRAS := test,bench
bench: $(STAMP)
	@$(BIN)/python -c 'import mambapy' 2>/dev/null || $(BIN)/python -m pip install --editable '.[bench]'
	env -u OMP_WAIT_POLICY $(BIN)/python -m benchmarks.speed.all

# What `python -m benchmarks.speed.gpu` needs beyond PyTorch, Triton and pytest, for a machine with a GPU and no network.
gpu-wheels: $(STAMP)
	rm -rf .whl
	$(BIN)/python -m pip wheel --no-deps --wheel-dir .whl $$($(BIN)/python -m pip freeze | grep -E '^(nnunetv2|dynamic_network_architectures)==')

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info runtime/build runtime/dist runtime/*.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -f $(foreach library,nnunetv2_lightm/ops/_native runtime/lightm_runtime/_engine,$(library).so $(library).dylib $(library).dll)
	find nnunetv2_lightm dataset_conversion runtime tests -name __pycache__ -type d -prune -exec rm -rf {} +
