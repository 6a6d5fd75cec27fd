# make lab            set up and open JupyterLab on the notebooks
# make test           set up and run the tests, but for the notebooks: under ten minutes
# make test-notebooks  set up and run every notebook once, solve its exercises, move its widgets: about eleven minutes
# make test-all       set up and run all tests, the long ones too, and then the browser's (needs Chromium)
# make test-browser   set up and try two lessons and all widgets in a browser (needs Chromium);
#                     every lesson and every page of the site, which takes a quarter of an hour: make test-browser ARGS="-m ''"
# make test-everywhere  run tests and notebooks with other processors' kernels, thread counts and versions (hours)
# make faults         break things on purpose: damaged files, full disks, kills, attacks (15 minutes at most)
# make test-colab     set up an environment like Google Colab's in .venv-colab (5 GB), run all notebooks there
# make run            set up and execute every notebook without a browser
# make times          the same, and write down how long each takes (classroom/minutes.json), on a quiet machine
# make solutions      for lecturers: the notebooks with the exercises filled in, executed, in build/solutions
# make slides         for lecturers: a slide deck of each lesson, in build/slides, that works without a network (needs npm)
# make handouts       the same, and a PDF of each deck, one page a slide (needs Chromium, too)
# make site           the course's pages, with every lesson's results, in build/site/html; they need no network
# make links REPO=owner/name [BRANCH=main]
#                     name the course's repository on GitHub: writes links to Colab and all first cells
# make lock           write down the versions here, with their hashes: requirements.lock (Linux, Python 3.11)
# make bench          set up and compare speed with other packages on this machine: docs/benchmarks.md (half an hour, quiet)
# make clean          remove what the tools left behind (not .venv, not your data)
#
# Another Python:       make lab PYTHON=python3.12
# Another environment:  make lab VENV=/some/folder
# Only some tests:      make test ARGS="tests/test_forward.py -x"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

PY := $(VENV)/bin/python

.PHONY: help lab test test-notebooks test-all test-browser test-everywhere faults test-colab run times solutions slides
.PHONY: handouts site links lock bench clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# Each stamp is newer than pyproject.toml once its extra is installed, so a second call installs nothing.
# A set-up that was broken off may have left a Python without pip: ensurepip repairs that.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@"$(PY)" -m pip --version >/dev/null 2>&1 || "$(PY)" -m ensurepip --default-pip
	"$(PY)" -m pip install -e '.[$*]'
	@touch "$@"

$(VENV)/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "'$(PYTHON)' was not found. Install Python 3.11 or newer, or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python"; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$("$(PYTHON)" --version 2>&1) is too old: these lessons need Python 3.11 or newer."; \
	  echo "If you have a newer one, name it: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments (the module venv or ensurepip is missing)."; \
	  echo "On Debian or Ubuntu: sudo apt install python3-venv. Then call make again."; \
	  exit 1; }
	@echo "Making the environment $(VENV). The first set-up downloads PyTorch and takes some minutes."
	@rm -f "$(VENV)"/.installed-*
	"$(PYTHON)" -m venv "$(VENV)"

lab: $(VENV)/.installed-lab
	"$(PY)" -m jupyterlab notebooks $(ARGS)

# A worker on each core, four at most; each test has one thread (tests/conftest.py).
PYTEST := "$(PY)" -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(VENV)/.installed-test
	$(PYTEST) -m "not long and not notebook" $(ARGS)

test-notebooks: $(VENV)/.installed-test
	$(PYTEST) -m notebook $(ARGS)

# CHROMIUM=/path/to/chromium names a browser that is not on the PATH.
test-browser: $(VENV)/.installed-browser
	CHROMIUM="$(CHROMIUM)" "$(PY)" -m pytest tests/browser $(ARGS)

test-all: $(VENV)/.installed-browser
	$(PYTEST) -m "long or not long" $(ARGS)
	CHROMIUM="$(CHROMIUM)" "$(PY)" -m pytest tests/browser -m "long or not long"

test-everywhere: $(VENV)/.installed-test
	"$(PY)" tools/everywhere.py $(ARGS)

faults: $(VENV)/.installed-test
	"$(PY)" tools/faults.py $(ARGS)

run: $(VENV)/.installed-test
	"$(PY)" tests/notebook_runner.py --out build/notebooks $(or $(ARGS),notebooks/*.ipynb)

times: $(VENV)/.installed-test
	"$(PY)" tests/notebook_runner.py --times --no-widgets $(or $(ARGS),notebooks/*.ipynb)

solutions: $(VENV)/.installed-test
	"$(PY)" tools/solutions.py $(ARGS)

# uv is no part of the environment; it only works out the hashes. Names of servers stay out of the file.
lock: $(VENV)/.installed-test
	@mkdir -p build
	"$(PYTHON)" -m venv build/uv && build/uv/bin/python -m pip install -q uv
	"$(PY)" -m pip list --format=freeze --exclude-editable > build/versions.txt
	head -n 2 requirements.lock > build/requirements.lock
	build/uv/bin/uv pip compile pyproject.toml --extra lab --extra test --constraint build/versions.txt --python "$(PY)" \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links -q >> build/requirements.lock
	mv build/requirements.lock requirements.lock

slides: $(VENV)/.installed-slides
	"$(PY)" tools/slides.py $(ARGS)

handouts: $(VENV)/.installed-browser
	CHROMIUM="$(CHROMIUM)" "$(PY)" tools/slides.py --pdf $(ARGS)

site: $(VENV)/.installed-test $(VENV)/.installed-site
	"$(PY)" tools/pages.py $(ARGS)

# The packages to compare with live in an environment of their own, which sees this course, its torch and all the rest.
.venv-bench/.with-peers: pyproject.toml $(VENV)/.installed-test
	"$(PY)" -m venv .venv-bench
	"$(PY)" -c 'import sysconfig; print(sysconfig.get_path("purelib")); print("$(CURDIR)")' > \
	  "$$(.venv-bench/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth"
	.venv-bench/bin/python -m pip install diffusers denoising-diffusion-pytorch smalldiffusion
	@touch "$@"

bench: .venv-bench/.with-peers
	.venv-bench/bin/python benchmarks/benchmark.py $(ARGS)

# Only a REPO of the command line counts; an empty one takes the links out again.
links:
	@"$(PYTHON)" tools/links.py $(if $(filter command,$(origin REPO)),--repo '$(REPO)') \
	  $(if $(filter command,$(origin BRANCH)),--branch '$(BRANCH)')

.venv-colab/.like-colab: tests/colab/requirements.txt tests/colab/build
	tests/colab/build .venv-colab "$(PYTHON)"

test-colab: .venv-colab/.like-colab
	.venv-colab/bin/python tests/colab_runner.py --out build/colab $(or $(ARGS),notebooks/*.ipynb)

clean:
	rm -rf build docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find benchmarks diffusion_lessons notebooks tests tools \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
