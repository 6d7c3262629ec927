# Everything in one place: `make demo` and `make test` set up what they need on a fresh machine with Python 3.10-3.13
# and a package index. PYTHON chooses the interpreter, VENV the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# An environment that could not be made whole (Debian without python3-venv) is made anew the next time.
.DELETE_ON_ERROR:

.PHONY: demo test chosen lint format lock mediapipe zig clean

demo: chosen $(VENV)/.convert
	$(BIN)/edgenet demo -o demo

test: chosen $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# An environment stays what it was made of: whoever names another Python is told.
chosen:
ifneq ($(origin PYTHON),file)
	@[ ! -x $(BIN)/python ] || [ "$$($(BIN)/python -V)" = "$$($(PYTHON) -V)" ] || echo >&2 \
	    "$(VENV) was made of $$($(BIN)/python -V) and stays so: make clean before PYTHON=$(PYTHON), or name another VENV"
endif

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What `pip install -c requirements.lock` holds everything to, on every Python and platform supported.
lock: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --upgrade \
	    --no-annotate --no-emit-index-url --no-header --no-emit-find-links -o requirements.lock

# A Python that has MediaPipe, for the tests that ask it: it brings an OpenCV that must not share our environment.
mediapipe: $(VENV)-mediapipe/.done
	@echo "$(CURDIR)/$(VENV)-mediapipe/bin/python"

$(VENV)-mediapipe/.done: | $(VENV)/bin/python
	@$(PYTHON) -m venv $(VENV)-mediapipe
	@$(VENV)-mediapipe/bin/python -m pip install --quiet --disable-pip-version-check mediapipe==1.2.* >&2
	@touch $@

# A Python that has the compiler of the shipped runners, for the test that they are their sources'.
zig: $(VENV)-zig/.done
	@echo "$(CURDIR)/$(VENV)-zig/bin/python"

$(VENV)-zig/.done: | $(VENV)/bin/python
	@$(PYTHON) -m venv $(VENV)-zig
	@$(VENV)-zig/bin/python -m pip install --quiet --disable-pip-version-check ziglang==0.13.0 >&2
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-mediapipe $(VENV)-zig build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info < (3, 14); sys.exit(not ok and \
	    f"edgenet needs Python 3.10-3.13, and $(PYTHON) is {sys.version.split()[0]}; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.convert: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[convert]"
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[convert,dev]"
	@touch $@ $(VENV)/.convert
