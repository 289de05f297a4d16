# Everything sets up .venv by itself: a fresh machine needs only Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := cpu,eval,rtx,train,export,calib,demo,dev,mutants

# As many workers as cores, of at most 1.5 GB each
WORKERS := -n auto --maxprocesses 8 --dist worksteal

# Commands start hundreds of times in the tests, and compile the same modules each time where nothing may be kept
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check slow fuzz coverage mutants floors wheel sbom docs trial clean

demo: $(VENV)/ready
	$(BIN)/python examples/demo.py

test: $(VENV)/ready
	$(BIN)/python -m pytest $(WORKERS)

slow: $(VENV)/ready
	$(BIN)/python -m pytest $(WORKERS) --run-slow -m slow

# Every reader of files with 20,000 damaged ones
fuzz: $(VENV)/ready
	$(BIN)/python -m tests.fuzz --executions 20000 --seed 1 --json benchmarks/results/fuzz.json

# Lines and branches that the tests of `make test` run, in subprocesses, too
coverage: $(VENV)/ready
	$(BIN)/python benchmarks/run.py coverage

# Small changes of the code whose faults would cost AP silently: do its fast tests notice? 20 minutes on one core
mutants: $(VENV)/ready
	$(BIN)/python benchmarks/run.py mutants

# The tests of what runs on a device, with the lowest versions that pyproject.toml promises, and with the newest
floors: $(VENV)/ready
	.ci/versions

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A build folder of an earlier state would put its deleted modules into the wheel. With the time of the last commit in it
# instead of that of the build, the same checkout gives the same bytes
wheel: $(VENV)/ready
	rm -rf build
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --wheel

# All packages that are installed, with their licenses, as CycloneDX
sbom: $(VENV)/ready
	$(BIN)/python docs/licenses.py --sbom dist/sbom.json

# tensorrt-stubs asks for the TensorRT libraries, which mypy does not need (--no-deps); it has no py.typed, so that mypy finds
# it only apart from the installed packages, where it cannot pass for an installed TensorRT either (--target); and its
# generator wrote five signatures that are no Python (sed)
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --upgrade --target $(VENV)/stubs tensorrt-stubs
	sed -i -E 's/, in: list/, in_: list/; s/(def add_scale_nd.*channel_axis: int)\)/\1 = ...)/' $(VENV)/stubs/tensorrt_bindings/tensorrt.pyi
	touch $@

docs: $(VENV)/ready
	$(BIN)/python docs/build.py -o site

# The wheel in fresh environments of every Python that it supports, as a newcomer installs it; needs those Pythons
trial: wheel
	$(BIN)/python -m pytest --run-slow tests/house/test_fresh_install.py

clean:
	rm -rf $(VENV) build dist site *.egg-info
