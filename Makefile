# Needs git, make and Python 3.11 or newer, and nothing else. `make` alone shows what there is.

# The interpreter of the virtual environment; by default the best that is found.
PYTHON ?=
# Where the virtual environment lies.
VENV ?= .venv
# More arguments for pytest: make test ARGS='-k pacing'
ARGS ?=

BIN := $(VENV)/bin
# Programs and packages come from the environment alone, never from the user's own folders.
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
# Two targets would install into one environment at once.
.NOTPARALLEL:
.PHONY: help run service test test-quick check format bench bench-peers bench-full torture fuzz test-all wheel lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.run $(VENV)/.package ## Fetch 200 near-Earth objects into data/ (needs no key: then a sandbox stands in for NASA)
	$(BIN)/python -m neows_async run --limit 200

service: $(VENV)/.service $(VENV)/.package ## Serve the example website on loopback, over a catalogue that it keeps fresh (needs no key, as above)
	PYTHONPATH=examples/service $(BIN)/python -m neo_site

test: $(VENV)/.test $(VENV)/.package ## Run the tests
	@# The tests start programs that came with the environment, such as the S3 server.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-quick: $(VENV)/.test $(VENV)/.package ## Run the quick tests: under a minute, covers each package (see SLOW in tests/conftest.py)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(ARGS)

check: $(VENV)/.check $(VENV)/.package ## Check style, types, layers, wording, and that no page costs more modules or instructions
	@status=0; \
	try() { echo "$$*"; "$$@" || status=1; }; \
	try $(BIN)/python -m ruff check .; \
	try $(BIN)/python -m ruff format --check .; \
	try $(BIN)/python -m mypy $(wildcard src tests benchmarks examples hatch_build.py); \
	export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	try pyright; \
	try pyright --verifytypes neows_async --ignoreexternal; \
	try $(BIN)/lint-imports --no-logo; \
	try $(BIN)/python tools/check-wording; \
	try $(BIN)/python tools/trace-page; \
	try $(BIN)/python benchmarks/instructions.py --check; \
	exit $$status

format: $(VENV)/.check ## Format the code and mend what can be mended by a program
	$(BIN)/python -m ruff check --fix-only .
	$(BIN)/python -m ruff format .

bench: $(VENV)/.test $(VENV)/.package ## Measure: run each program of benchmarks/, in its quick form
	@set -e; for program in $(sort $(wildcard benchmarks/*.py)); do \
		echo "== $$program"; $(BIN)/python "$$program"; echo; \
	done

bench-peers: $(VENV)/.test $(VENV)/.package ## Measure others too, in environments of their own, and compare every row
	$(BIN)/python benchmarks/peers/compare.py

bench-full: $(VENV)/.test $(VENV)/.package ## Measure speed and memory in full, on a quiet machine (takes half an hour)
	$(BIN)/python benchmarks/speed.py --full

torture: $(VENV)/.test $(VENV)/.package ## Kill runs at every step and any instant, on disk and on S3 (takes half an hour)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.torture $(ARGS)

fuzz: $(VENV)/.fuzz $(VENV)/.package ## Give the parts that read answers ten thousand hostile ones, then fuzz by coverage (takes half an hour)
	$(BIN)/python -m tests.fuzz $(ARGS)

test-all: ## Run the tests on each supported Python that is found
	@failed=""; passed=""; missing=""; \
	for version in 3.11 3.12 3.13 3.14; do \
		if python="$$(tools/find-python $$version 2>/dev/null)"; then \
			echo "== Python $$version: $$python"; \
			if $(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python"; \
			then passed="$$passed $$version"; else failed="$$failed $$version"; fi; \
		else missing="$$missing $$version"; fi; \
	done; \
	echo "Passed on:$${passed:- none}. Failed on:$${failed:- none}. Not found:$${missing:- none}."; \
	test -z "$$failed" && test -n "$$passed"

wheel: $(VENV)/.run ## Build the wheel and the source archive into dist/
	$(BIN)/python -m hatchling build

lock: $(VENV)-lock/.created ## Renew the pinned versions in requirements/
	@$(VENV)-lock/bin/python -m pip install --quiet --quiet uv
	@# A later lock must hold every version of the earlier ones, or the environments would differ.
	@$(LOCK) --upgrade --extra s3 --group build --output-file requirements/run.txt pyproject.toml
	@$(LOCK) --upgrade --extra s3 --extra prometheus --group service --constraints requirements/run.txt \
		--output-file requirements/service.txt pyproject.toml
	@$(LOCK) --upgrade --all-extras --group test --constraints requirements/service.txt \
		--output-file requirements/test.txt pyproject.toml
	@$(LOCK) --upgrade --all-extras --group fuzz --constraints requirements/test.txt --output-file requirements/fuzz.txt pyproject.toml
	@$(LOCK) --upgrade --all-extras --group check --constraints requirements/test.txt --output-file requirements/check.txt pyproject.toml

# Universal: one lock for every supported Python, system and processor.
LOCK = $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

clean: ## Remove environments, caches and dist/; the lake under data/ stays
	rm -rf .venv .venv-* dist build .fuzz .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -f src/neows_async/endpoints/browse/*.so
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The environments. Each step leaves a stamp, so that it is done again only when its lock changes.
# An environment holds absolute paths: one that was moved, or whose interpreter is gone, is made anew.
define environment
ifneq ($$(shell test -x $(1)/bin/python && cat $(1)/.created 2>/dev/null),$$(CURDIR))
.PHONY: $(1)/.created
endif
$(1)/.created:
	@python="$$$$(tools/find-python $$(PYTHON))" && \
		echo "Making $(1) with $$$$python" && \
		rm -f $(1)/.run $(1)/.service $(1)/.test $(1)/.fuzz $(1)/.check $(1)/.package && \
		"$$$$python" -m venv --clear $(1)
	@echo '$$(CURDIR)' > $$@
endef
$(eval $(call environment,$(VENV)))
$(eval $(call environment,$(VENV)-lock))

# Only wheels: the sources of a package would be built by tools that no hash covers.
INSTALL = $(BIN)/python -m pip install --quiet --quiet --require-hashes --only-binary :all: --requirement

$(VENV)/.run: requirements/run.txt $(VENV)/.created
	@echo "Installing what is pinned in $<"
	@$(INSTALL) $<
	@touch $@

# Each of the next locks holds all that the one before it holds.
$(VENV)/.service: requirements/service.txt $(VENV)/.created
	@echo "Installing what is pinned in $<"
	@$(INSTALL) $<
	@touch $(VENV)/.run $@

$(VENV)/.test: requirements/test.txt $(VENV)/.created
	@echo "Installing what is pinned in $<"
	@$(INSTALL) $<
	@touch $(VENV)/.run $(VENV)/.service $@

$(VENV)/.check: requirements/check.txt $(VENV)/.created
	@echo "Installing what is pinned in $<"
	@$(INSTALL) $<
	@touch $(VENV)/.run $(VENV)/.service $(VENV)/.test $@

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.created
	@echo "Installing what is pinned in $<"
	@$(INSTALL) $<
	@touch $(VENV)/.run $(VENV)/.service $(VENV)/.test $@

# The package itself, from where it lies. Its backend comes from the lock that stands before this stamp
# wherever it is asked for, so nothing is fetched here.
$(VENV)/.package: pyproject.toml hatch_build.py src/neows_async/_version.py src/neows_async/endpoints/browse/_approach_scan.c $(VENV)/.created
	@$(BIN)/python -m pip install --quiet --quiet --no-index --no-deps --no-build-isolation --editable .
	@touch $@
