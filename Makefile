# Every chore of the project; CI calls nothing else.

PYTHON ?= $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$candidate && break; done)
BIN := .venv/bin
READY := .venv/.ready
CODE := shortft_core store migrations api worker shortft_client shapes benchmarks tests
# More than cores: many tests wait for processes. They and those that they start keep bytecode: to
# rewrite the assertions of all tests anew takes every worker 9 seconds of a core.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check format lint types contracts docs fmt golden constraints

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with everything pinned in constraints.txt

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[train,server,bench,dev]'
	@touch $@

demo: $(READY) ## Start the service, tune the bundled model over HTTP, draw before and after
	$(BIN)/shortft demo

serve: $(READY) ## Run the service on this machine until Ctrl-C
	$(BIN)/shortft serve

test: $(READY) ## Run every test that needs no GPU and no network
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

check: format lint types contracts docs ## Everything CI checks beside the tests

format: $(READY) ## Check the formatting
	$(BIN)/ruff format --check $(CODE)

lint: $(READY) ## Check against the lint rules of pyproject.toml
	$(BIN)/ruff check $(CODE)

types: $(READY) ## Check the types (mypy --strict)
	$(BIN)/mypy

contracts: $(READY) ## Check the import contracts between and inside the rooms
	$(BIN)/lint-imports

docs: $(READY) ## Check links, commands and tables of the documents
	$(BIN)/pytest --quiet tests/architecture/test_documents.py

fmt: $(READY) ## Format the code and apply safe lint fixes
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

golden: $(READY) ## Record the golden loss traces anew; read the difference before committing
	$(BIN)/python -m tests.golden.write

constraints: $(READY) ## Write constraints.txt from what .venv holds now
	@{ sed -n '/^#/p' constraints.txt; \
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' \
	| grep -vE '^(#|cuda|nvidia|setuptools|shortft|triton)'; } > constraints.new
	@mv constraints.new constraints.txt
