# make book       run every notebook and build the pages
# make test       check everything
# make html       build the pages from the stored outputs, in seconds
# make pdf        print the whole book into _build/book.pdf
# make notebooks  run every notebook again and store its outputs
# make lab        open the notebooks in JupyterLab
# make bench      measure the speed of the methods
# make course     try the assignments on a sample class of five
# make course-test  check the grader: every reference, every wrong hand-in
# make lint       check the style of the code
# make clean      remove what was built, and the virtual environment

PYTHON ?= python3
BIN := .venv/bin
# Written last: without it an environment is unfinished and is made anew.
READY := .venv/.installed
# -W turns every warning into a failure, also that of a page already built: --all
BUILD := $(BIN)/jupyter-book build --all -q -n -W --keep-going --path-output .
# Building the pages imports the package, and TensorFlow has much to say.
export TF_CPP_MIN_LOG_LEVEL ?= 3
SAY_WHERE := printf '%s\n' 'The book: file://$(CURDIR)/_build/html/index.html' \
  'To serve it at http://localhost:8000: $(BIN)/python -m http.server -d _build/html'

EXPLAIN := printf '%s\n' \
  'The packages of requirements.txt could not be installed: either this environment' \
  'is new, or the list has changed since, and pip needs a network for what is missing.' \
  'Nothing was changed. What pip said is in .venv/pip.log.' \
  '  With a network (or its proxy in https_proxy): run the same command again.' \
  '  Without: go back to the revision that you had (git checkout); or keep what is' \
  '  installed and try it with the files of now: touch $(READY)'

.PHONY: book test html pdf notebooks lab bench course course-test lint clean
.DELETE_ON_ERROR:

book: $(READY)
	rm -rf _build/executed
	mkdir -p _build/executed/notebooks
	cp -r _config.yml _toc.yml book _build/executed
	cp -r notebooks/assignments _build/executed/notebooks
	$(BIN)/python -m tools.run_notebooks --into _build/executed
	$(BUILD) _build/executed
	@$(SAY_WHERE)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

html: $(READY)
	$(BUILD) .
	@$(SAY_WHERE)

pdf: html
	$(BIN)/python -m tools.print_book

notebooks: $(READY)
	$(BIN)/python -m tools.run_notebooks

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: $(READY)
	$(BIN)/python -m pytest tests/benchmarks -s

course: $(READY)
	$(BIN)/python -m tools.assignments sample --jobs 2

course-test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "course or not course" tests/assignments

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

clean:
	rm -rf _build .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip fetches everything before it changes anything, so that a failure leaves an old
# environment as it was; a new one is unfinished until $@ is written.
$(READY): requirements.txt binder/requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("The book needs Python 3.10 to 3.13; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 ...")'
	@echo "Installing into .venv (a few minutes the first time) ..."
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@# setuptools would warn that an editable installation is editable
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt 2> .venv/pip.log || { $(EXPLAIN); exit 1; }
	@touch $@
