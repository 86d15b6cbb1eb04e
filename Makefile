# SPDX-License-Identifier: GPL-3.0-or-later
# What a newcomer, a developer and the CI run. Each target sets up what it needs: Python packages in .venv, everything
# that is built in target/, and, as root on Debian, the packages in XEN_PACKAGES with apt-get.

SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed) pyproject.toml README.md LICENSE
PYTHON_FOLDERS := python tests bench examples scripts
MIN_RUST := 1.88
# What the real Xen is built and tested with. Without them everything but the real Xen works.
XEN_PACKAGES := libxen-dev libclang-dev libxenmisc4.17 xen-utils-4.17
# The one that is installed, or one that is compiled here once, which takes some minutes.
DENY := $(or $(shell command -v cargo-deny),target/tools/bin/cargo-deny)
# The tests on Xen run in parts, each in a machine of its own: an emulated machine keeps one processor busy.
XEN_PARTS := 1 2
# The image of the testbed, and what its last runs brought back.
TESTBED := target/testbed
# Evaluated when it is needed: the packages may have been installed a moment ago.
FEATURES = $(addprefix --features ,$(shell bash scripts/xen-features.sh))
# Every crate that this machine can build.
CRATES = --workspace $(or $(FEATURES),--exclude xenmig-xen)

# What tests run against: the release wheel, or with DEV=1 the quick build. Both install into .venv, and each makes the
# other out of date, so a target never runs against a build that it did not ask for.
PACKAGE := $(if $(DEV),dev,$(VENV)/installed)
# More arguments for pytest or cargo test: make test-unit ARGS='-x -k policy'.
ARGS ?=
# The layers of tests/ that pytest runs without Xen.
LAYERS := unit stream style parity helper

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help tools demo dev test test-rust $(LAYERS:%=test-%) test-xen check check-format format lint types docs deny bench picture clean

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## Say which tools are missing, and how to get them
	@bash scripts/check-tools.sh "$(PYTHON)" "$(MIN_RUST)"

demo: $(PACKAGE) ## Migrate a simulated domain under a Python policy, and check its memory
	$(BIN)/xenmig demo

dev: $(VENV)/tools ## Install a quick build and links to the Python sources: then make test-unit DEV=1
	PYO3_BUILD_EXTENSION_MODULE=1 cargo build --quiet --profile quick --locked --package xenmig-python $(FEATURES)
	$(BIN)/python scripts/install_dev.py target/quick/lib_native.so \
		$(BIN)/maturin build --quiet --profile quick --locked $(FEATURES) --out

test: test-rust $(LAYERS:%=test-%) ## Run all tests that need no Xen (DEV=1: against the quick build)

test-rust: $(VENV)/tools ## Run the unit and property tests of the crates
	cargo test $(CRATES) --locked --quiet $(ARGS)

test-unit: ## Run the tests of the Python API, the commands, the examples and the documentation
test-stream: ## Run the tests of the independent reader of streams
test-style: ## Run the checks of the house rules
test-parity: ## Compare with C libxc over a fake kernel
test-helper: ## Run the save helper against a libxl that is played by the test
$(LAYERS:%=test-%): test-%: $(PACKAGE)
	$(BIN)/python -m pytest tests/$* $(ARGS)

test-xen: $(VENV)/installed ## Run the tests on a real Xen, in testbeds under QEMU, side by side
	tests/xen/testbed/build.sh
	$(BIN)/python tests/xen/testbed/environment.py $(TESTBED)/py target/wheels/*.whl --group test
	$(MAKE) --no-print-directory --jobs $(words $(XEN_PARTS)) $(XEN_PARTS:%=test-xen-part-%)

test-xen-part-%:
	$(BIN)/python tests/xen/testbed/run.py --timeout 4500 --out $(TESTBED)/results/$* \
		--in pyproject.toml --in README.md --in examples=examples --in tests/xen=tests/xen --in py=$(TESTBED)/py -- \
		env XENMIG_TESTBED=1 XENMIG_TEST_PART=$*/$(words $(XEN_PARTS)) python3 -u -m pytest -m xen -p no:cacheprovider \
		--durations=10 --junitxml=/out/junit.xml $(ARGS) 2>&1 | sed --unbuffered 's/^/part $*: /'

check: check-format lint types docs deny ## Run every check but the tests: format, lints, types, documentation, licences

format: $(VENV)/tools ## Format Rust and Python sources
	cargo fmt --all
	$(BIN)/ruff format $(PYTHON_FOLDERS)

check-format: $(VENV)/tools
	cargo fmt --all --check
	$(BIN)/ruff format --check $(PYTHON_FOLDERS)

lint: $(VENV)/tools ## Run clippy and ruff
	cargo clippy $(CRATES) --all-targets --locked --quiet -- -D warnings
	$(BIN)/ruff check $(PYTHON_FOLDERS)

types: $(PACKAGE) ## Run mypy, and hold the stub of the extension against the extension
	$(BIN)/mypy
	cd $(VENV) && bin/python -m mypy.stubtest xenmig._native

docs: $(VENV)/tools ## Build the documentation
	RUSTDOCFLAGS="-D warnings" cargo doc $(CRATES) --no-deps --locked --quiet
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

deny: $(DENY) ## Check licences, versions and sources of the dependencies (deny.toml)
	$(DENY) --locked check licenses bans sources

# Results go to target/bench. KEEP=1 also updates bench/results and the documents' tables. BASE=, a wheel or a commit,
# compares with that build instead, in the rows whose names have the text ROWS (all); PAIRS= is the number of pairs.
bench: $(VENV)/installed ## Measure against C libxc, or against another build: BASE=wheel-or-commit
	$(if $(BASE),base=$$(bash scripts/base-wheel.sh $(BASE) $(BIN)/maturin $(FEATURES)) &&) \
		$(BIN)/python bench/run.py $(if $(KEEP),--keep) $(if $(PAIRS),--pairs $(PAIRS)) \
		$(if $(BASE),--base "$$base") $(if $(ROWS),--rows '$(ROWS)')

picture: $(PACKAGE) ## Draw docs/demo.svg, the picture of a run in README
	$(BIN)/python scripts/draw_demo.py docs/demo.svg

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

# The wheel, built for release and installed as a user would have it. What `make dev` installed is removed first: pip
# would follow its links into the source tree.
$(VENV)/installed: $(VENV)/tools $(RUST_SOURCES) $(PYTHON_SOURCES)
	rm -rf target/wheels $(VENV)/lib/python*/site-packages/xenmig
	$(BIN)/maturin build --quiet --release --locked --out target/wheels $(FEATURES)
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps target/wheels/*.whl
	$(BIN)/python -m pip install --quiet target/wheels/*.whl
	@touch $@

target/tools/bin/cargo-deny:
	cargo install cargo-deny --locked --quiet --root target/tools
