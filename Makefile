# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

.PHONY: setup demo lint test test-slow clean

setup: $(VENV)/installed

# The lock names every package, so pip need not resolve anything.
$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@touch $@

# One thread: on an idle machine two are faster, on a busy one many times slower.
demo: setup
	$(BIN)/python dataset_tool.py --build=stacked-digits --dest=$(DEMO)/digits.zip
	$(BIN)/python train.py --outdir=$(DEMO)/runs --data=$(DEMO)/digits.zip --cfg=tiny --madr=1 --aug=noaug --kimg=20 --tick=1 --snap=4 --threads=1
	$(BIN)/python calc_metrics.py --metrics=madr_modes5k --network=$$(ls -t $(DEMO)/runs/*/network-snapshot-*.pkl | head -n 1)
	$(BIN)/python report.py $$(ls -td $(DEMO)/runs/*/ | head -n 1)
	@echo
	@echo "Real images, samples over time and the report (open it in a browser):"
	@ls $$(ls -td $(DEMO)/runs/*/ | head -n 1)reals.png $$(ls -td $(DEMO)/runs/*/ | head -n 1)fakes*.png $$(ls -td $(DEMO)/runs/*/ | head -n 1)report.html

# Style, format, and types where parts meet; settings in pyproject.toml. `.venv/bin/ruff format .` mends the format.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

test-slow: setup
	$(BIN)/python -m pytest -m slow tests

clean:
	rm -rf $(VENV) $(DEMO)
