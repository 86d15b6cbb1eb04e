# SPDX-License-Identifier: GPL-3.0-or-later
# Everything a newcomer, a developer and the CI do. Each target does its own set-up; nothing is installed outside
# of .venv and target/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed) pyproject.toml README.md
MIN_RUST := 1.88
# What the real Xen is built and tested with. Without them everything but the real Xen works.
XEN_PACKAGES := libxen-dev libclang-dev libxenmisc4.17 xen-utils-4.17
# The image of the testbed, and what its last run brought back.
TESTBED := target/testbed
# Asked when it is needed: the packages may have been installed a moment ago.
FEATURES = $(addprefix --features ,$(shell bash scripts/xen-features.sh))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help tools demo dev test test-rust test-python test-xen check fmt lint types docs bench clean

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## Say which tools are missing, and how to get them
	@bash scripts/check-tools.sh "$(PYTHON)" "$(MIN_RUST)"

demo: $(VENV)/installed ## Migrate a simulated domain under a Python policy, and check its memory
	$(BIN)/xenmig demo

dev: $(VENV)/tools ## Build and install quickly, without link-time optimisation: then $(BIN)/pytest tests/...
	@rm -f $(VENV)/installed
	cargo build --quiet --profile quick --locked --package xenmig-python $(FEATURES)
	$(BIN)/python scripts/install_dev.py target/quick/lib_native.so

test: test-rust test-python ## Run all tests that need no Xen

test-rust: $(VENV)/tools
	cargo test --workspace --locked --quiet $(FEATURES)

test-python: $(VENV)/installed
	$(BIN)/python -m pytest

test-xen: $(VENV)/installed ## Run the tests on a real Xen, in a testbed under QEMU
	tests/xen/testbed/build.sh
	$(BIN)/python tests/xen/testbed/environment.py $(TESTBED)/py target/wheels/*.whl --group test
	$(BIN)/python tests/xen/testbed/run.py --timeout 4500 --out $(TESTBED)/results \
		--in pyproject.toml --in README.md --in examples=examples --in tests/xen=tests/xen --in py=$(TESTBED)/py -- \
		env XENMIG_TESTBED=1 python3 -u -m pytest -m xen -p no:cacheprovider --durations=10 --junitxml=/out/junit.xml

check: fmt lint types docs test ## Run every check: format, lints, types, documentation, tests

fmt: $(VENV)/tools ## Check the format of Rust and Python sources
	cargo fmt --all --check
	$(BIN)/ruff format --check python tests bench examples

lint: $(VENV)/tools ## Run clippy and ruff
	cargo clippy --workspace --all-targets --locked --quiet $(FEATURES) -- -D warnings
	$(BIN)/ruff check python tests bench examples

types: $(VENV)/installed ## Run mypy, and hold the stub of the extension against the extension
	$(BIN)/mypy
	cd $(VENV) && bin/python -m mypy.stubtest xenmig._native

docs: $(VENV)/installed ## Build the documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet $(FEATURES)
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/installed ## Measure against C libxc, what a policy costs, and the memory of a save
	$(BIN)/python bench/run.py

clean: ## Remove everything that was built
	rm -rf $(VENV) target site dist

# A virtual environment with the tools of the dependency groups.
$(VENV)/tools: pyproject.toml scripts/check-tools.sh scripts/xen-packages.sh
	@bash scripts/check-tools.sh "$(PYTHON)" "$(MIN_RUST)"
	@bash scripts/xen-packages.sh $(XEN_PACKAGES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group build --group test --group check --group docs --group bench
	@touch $@

# The wheel, built for release and installed as a user would have it: no editable install that can go stale.
$(VENV)/installed: $(VENV)/tools $(RUST_SOURCES) $(PYTHON_SOURCES)
	rm -rf target/wheels
	$(BIN)/maturin build --quiet --release --locked --out target/wheels $(FEATURES)
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps target/wheels/*.whl
	$(BIN)/python -m pip install --quiet target/wheels/*.whl
	@touch $@
