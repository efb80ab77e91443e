# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

.PHONY: setup demo test test-slow clean

setup: $(VENV)/installed

# The lock names every package, so pip need not resolve anything.
$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@touch $@

demo: setup
	$(BIN)/python demo.py --outdir $(DEMO)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

test-slow: setup
	$(BIN)/python -m pytest -m slow tests

clean:
	rm -rf $(VENV) $(DEMO)
