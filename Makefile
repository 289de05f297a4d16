# Everything sets up .venv by itself: a fresh machine needs only Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := cpu,eval,rtx,train,export,dev

.PHONY: demo test check slow clean

demo: $(VENV)/ready
	$(BIN)/python benchmarks/demo.py

test: $(VENV)/ready
	$(BIN)/python -m pytest

slow: $(VENV)/ready
	$(BIN)/python -m pytest --run-slow

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# tensorrt-stubs asks for the TensorRT libraries themselves, which mypy does not need: hence --no-deps
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps tensorrt-stubs
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
