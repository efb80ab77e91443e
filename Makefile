# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

.PHONY: setup demo lint test test-slow clean

setup: $(VENV)/installed

# The lock names every package, so pip need not resolve anything. The imports write the bytecode of what every program here needs: in containers that
# forbid Python to write it (PYTHONDONTWRITEBYTECODE) each start would compile PyTorch anew, for seconds.
$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements.lock
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c "import numpy, PIL.Image, pytest, scipy.linalg, timm, torch._dynamo, torch.utils.tensorboard"
	@touch $@

# The same small GAN twice, without and with MADR, and a page of both. Called again it goes on, or shows what is done.
demo: setup
	$(BIN)/python -m experiments.demo --outdir=$(DEMO)

# Style, format, and types where parts meet; settings in pyproject.toml. `.venv/bin/ruff format .` mends the format.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A file's tests share what they train, so a file stays in one process; tests/conftest.py puts the longest first.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests

test-slow: setup
	$(BIN)/python -m pytest -m slow tests

clean:
	rm -rf $(VENV) $(DEMO)
