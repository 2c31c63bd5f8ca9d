# `make demo` runs the main job on a fleet of real hosts made on this machine, `make test` all tests,
# `make down` removes what the demo left, `make check` looks at format, lint, types and docs.

VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LAB := $(BIN)/python -m tests.lab

# Tests start Python some thousand times: without its own cache each would compile all of roles/.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo down test unit render lab soak check format benchmark reference

# Everything that is installed on the machine itself is installed here, or named.
$(READY): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "missing: Python 3.11 or newer as $(PYTHON); set PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || sh tests/packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

help: ## list what make does here
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

demo: $(READY) ## run the main job on a fleet of real hosts made on this machine (root, Debian 12)
	@sh tests/lab/demo.sh $(BIN)

down: $(READY) ## remove what the demo left
	@$(LAB) down

test: unit render lab ## run all tests, those over real hosts included

# Side by side, for machines with two cores, in halves that take about as long.
PLANS := $(addprefix tests/unit/,hardware models topology plan driver)
SCREEN := $(wildcard $(addprefix tests/render/test_,screen.py balancer.py nginx.py haproxy.py replacement.py completions*.py all_*.py validation_runs.py))
unit: $(READY) ## run the tests of what decides: no program, no server
	@$(BIN)/pytest $(PLANS) & plans=$$!; \
	$(BIN)/pytest tests/unit $(addprefix --ignore=,$(PLANS)); rest=$$?; wait $$plans && exit $$rest

PACKAGES := nginx-light haproxy keepalived nftables systemd openssl curl iproute2
render: $(READY) ## run the tests of whole files and programs (nginx, haproxy, keepalived, nftables, systemd)
	@sh tests/packages.sh $(PACKAGES)
	@$(BIN)/pytest $(SCREEN) & screen=$$!; \
	$(BIN)/pytest tests/render $(addprefix --ignore=,$(SCREEN)); rest=$$?; wait $$screen && exit $$rest

# The rights for it are asked for by the tests themselves: without them they are skipped, not in CI.
# What has hosts of its own goes beside the other tests, as a guest of the same lab.
BESIDE := $(addprefix tests/lab/test_,$(addsuffix .py,bare_hosts drivers amd_drivers day_two services ollama crash mixed_host sglang virtual_address cluster))
lab: $(READY) ## run the tests over real hosts (root, Debian 12)
	@LAB_BESIDE=1 $(BIN)/pytest $(BESIDE) & beside=$$!; \
	$(BIN)/pytest tests/lab $(addprefix --ignore=,$(BESIDE)); rest=$$?; wait $$beside && exit $$rest

soak: $(READY) ## run the tests over real hosts that take longest (root, Debian 12)
	@$(BIN)/pytest tests/lab -m soak -s

check: $(READY) ## look at format, lint, types and the docs' site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/mkdocs build --quiet --strict

format: $(READY) ## format the code, and mend what lint can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(READY) ## count and compare; decides nothing
	$(BIN)/pytest tests/benchmarks

# The tables of settings, from the settings themselves, and those of sizes, from the planner.
reference: $(READY) ## write docs/settings.md and docs/sizing.md anew
	$(BIN)/python -m roles.declaration.reference docs/settings.md
	$(BIN)/python -m roles.topology.size_reference docs/sizing.md
