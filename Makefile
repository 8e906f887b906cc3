# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := schemas pricing backends streams sinks alerting reports relay control operations app embedded
# Two workers on two cores; more only make the real brokers in the tests wait for each other.
JOBS ?= 2
KAFKA ?= embedded
CYCLES ?= 20
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test sim unit functional integration lint format types architecture thin-relay compose bench chaos clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.embedded: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.embedded
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.embedded ## the whole pipeline on this machine, as a scripted demo (ONCE=1 stops at its end)
	$(BIN)/meterline demo $(if $(ONCE),--once)

test: $(VENV)/.dev ## unit, property, contract and functional tests on the embedded servers
	$(BIN)/pytest -n $(JOBS) --dist loadgroup tests --ignore=tests/integration

sim: $(VENV)/.dev ## seeded simulation until a schedule fails; SCHEDULE=n plays that one with its trace
	$(BIN)/python -m tests.simulation --processes $(JOBS) $(if $(SCHEDULE),--seed $(SCHEDULE))

unit: $(VENV)/.dev ## only the fast tests: no server is started
	$(BIN)/pytest -q -m 'not functional' tests/unit tests/property tests/golden tests/scenario

integration: $(VENV)/.dev ## the whole pipeline as processes, on KAFKA=embedded or KAFKA=apache
	$(BIN)/pytest -p no:randomly tests/integration --kafka $(KAFKA)

lint: $(VENV)/.dev ## ruff, spelling, dead code, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/interrogate --quiet $(PACKAGES)
	$(BIN)/vulture

format: $(VENV)/.dev ## write the format that lint checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

architecture: $(VENV)/.dev ## the dependency rule, and that every import is declared
	$(BIN)/lint-imports
	$(BIN)/deptry .

thin-relay: ## the relay extra installs and works without Faust and ClickHouse
	$(PYTHON) tests/thin_relay.py

compose: ## docker-compose.yml is valid (needs the docker client, no engine)
	docker compose config --quiet

bench: $(VENV)/.dev ## every benchmark, one after the other, as JSON lines
	for name in gate streams sink latency alerts scale; do $(BIN)/python -m benchmarks.$$name --json || exit 1; done

chaos: $(VENV)/.dev ## the proof that no kill loses or doubles anything (CYCLES=20 SEED=1 KAFKA=embedded)
	$(BIN)/python -m benchmarks.chaos --cycles $(CYCLES) --seed $(SEED) --kafka $(KAFKA)

clean: ## forget the environment and the embedded data
	rm -rf $(VENV) .meterline build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
