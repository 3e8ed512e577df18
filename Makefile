# Every target does its own set-up: a virtual environment inside the clone, packages, the native build. Needed beforehand:
# Python 3.11 or later with its headers, and a C compiler. `make` alone lists the targets.

VENV ?= .venv
PY = $(VENV)/bin/python
PIP = $(PY) -m pip install --quiet --disable-pip-version-check
PYTEST_ARGS ?=
# Processes that share all tests out; PYTEST_ARGS="-n 0" takes one, and is what a debugger needs.
TEST_PROCESSES ?= 2
BENCH_ARGS ?=
DEMO_ARGS ?=
# Whatever may be compiled: C, Cython, and Python modules, of which setup.py names some as hot.
NATIVE = $(wildcard csrc/*.[ch] src/fastlam/*/*.p[yx]*)

.DEFAULT_GOAL := help
.PHONY: help build demo test bench lint compatibility debug asan tsan wheel clean

help:
	@echo 'make demo    start a daemon, deploy the examples, invoke them, load them for ten seconds, show the bill'
	@echo 'make test    all tests                      PYTEST_ARGS="tests/unit -x" for some of them'
	@echo 'make build   .venv with fastlam in it, to work on'
	@echo 'make bench   all benchmarks, against peers in the same run'
	@echo 'make lint    ruff, mypy, cython-lint, import-linter'
	@echo 'make compatibility   docs/compatibility.md from the declarations in the code'
	@echo 'make python3.13   all tests on another interpreter than that of .venv; PYTHON=PATH where its name is not enough'
	@echo 'make debug   a build with assertions, and the unit tests on it'
	@echo 'make asan    the C tests and the core tests under the address and undefined behaviour sanitizers'
	@echo 'make tsan    the C tests and the core tests under the thread sanitizer'
	@echo 'make wheel   a wheel and a source distribution in dist/'
	@echo 'make clean   removes all that make has made, .venv too'

# ---- set-up --------------------------------------------------------------------------------------
# .installed: the editable installation, which builds everything once; .built: what has changed since, built in place.

$(VENV)/.installed: pyproject.toml setup.py tools/make_venv.sh tools/compile_service_model.py
	@[ -x $(PY) ] || tools/make_venv.sh $(VENV)
	@echo 'fastlam: installing packages and building, which takes a minute the first time'
	@$(PY) tools/requirements.py build | $(PIP) -r /dev/stdin
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE)
	@if [ -n "$$(find $(NATIVE) -newer $(VENV)/.installed)" ]; then $(PY) setup.py --quiet build_ext --inplace; fi
	@touch $@

$(VENV)/.extra-%: $(VENV)/.built pyproject.toml
	@if [ ! -e $@ ] || [ pyproject.toml -nt $@ ]; then $(PY) tools/requirements.py $* | $(PIP) -r /dev/stdin; fi
	@touch $@

build: $(VENV)/.built

# ---- what it is for ------------------------------------------------------------------------------

demo: $(VENV)/.built
	@$(PY) tools/demo.py $(DEMO_ARGS)

test: $(VENV)/.extra-test $(VENV)/.extra-lint
	@$(PY) -m pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS)

bench: $(VENV)/.extra-test $(VENV)/.extra-bench
	@$(PY) bench/run.py $(BENCH_ARGS)

lint: $(VENV)/.extra-test $(VENV)/.extra-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	PATH="$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint src
	$(VENV)/bin/lint-imports --no-logo

compatibility: $(VENV)/.built
	@$(PY) tools/compatibility.py

wheel: $(VENV)/.built
	@$(PIP) build
	@rm -rf dist build/release/lib* && $(PY) -m build --quiet --outdir dist . && ls dist

# ---- other interpreters --------------------------------------------------------------------------
# As checking builds: each has its own environment below build/, where fastlam is installed for real.

build/python3.%/venv/.built: pyproject.toml setup.py $(NATIVE) $(wildcard src/fastlam/*.py)
	@[ -x $(@D)/bin/python ] || PYTHON=$${PYTHON:-python3.$*} tools/make_venv.sh $(@D)
	@echo 'fastlam: building for make python3.$*'
	@$(@D)/bin/python tools/requirements.py build run test lint | $(@D)/bin/python -m pip install --quiet -r /dev/stdin
	@rm -rf build/release/lib*
	@$(@D)/bin/python -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .
	@touch $@

.PRECIOUS: build/python3.%/venv/.built
python3.%: build/python3.%/venv/.built
	@build/$@/venv/bin/python -m pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS)

# ---- checking builds -----------------------------------------------------------------------------
# Each has its own environment below build/, where fastlam is installed for real: the clone's own modules stay as they are.
# What a run covers is written at its target. Python itself is not instrumented; our modules and csrc are.

build/%/venv/.built: pyproject.toml setup.py $(NATIVE) $(wildcard src/fastlam/*.py)
	@[ -x $(@D)/bin/python ] || tools/make_venv.sh $(@D)
	@echo 'fastlam: building for make $*'
	@$(@D)/bin/python tools/requirements.py build run test | $(@D)/bin/python -m pip install --quiet -r /dev/stdin
	@rm -rf build/$(VARIANT)/lib*
	@$(@D)/bin/python -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .
	@touch $@

debug: export FASTLAM_DEBUG = 1
debug: VARIANT = debug
debug: build/debug/venv/.built
	@build/debug/venv/bin/python -m pytest tests/unit $(PYTEST_ARGS)

# The C tests in the way that fits, then what has the most C in it: lanes, slots and workers through the executor's and the
# daemon's doors (every environment is a checked process too), what hostile environments send, the JSON scanner, the result
# writer and the front of the HTTP server.
CHECKED_TESTS = tests/unit/test_dispatcher_frames.py tests/unit/test_dispatcher_streams.py tests/unit/test_dispatcher_rings.py \
	tests/unit/test_dispatcher_stacking.py tests/faults/test_stream_faults.py \
	tests/faults/test_hostile_lane.py tests/faults/test_hostile_frames.py tests/faults/test_hostile_rings.py \
	tests/integration/test_stacked_invocations.py tests/integration/test_event_loops.py \
	tests/integration/test_executor.py tests/integration/test_invoke_errors.py tests/native/test_scan_texts.py \
	tests/integration/test_http_server.py tests/integration/test_http_drain.py tests/integration/test_http_streaming.py tests/fuzz/test_http_front.py \
	tests/conformance/test_awslambdaric.py::test_plain_results tests/conformance/test_awslambdaric.py::test_floats --timeout 600

asan: export FASTLAM_SANITIZE = address,undefined
asan: VARIANT = address-undefined
asan: build/asan/venv/.built
	@build/asan/venv/bin/python -m pytest tests/native/test_native.py -k 'memory or fuzz or replay or sse2' $(PYTEST_ARGS)
	@LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0:quarantine_size_mb=8 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	build/asan/venv/bin/python -m pytest $(CHECKED_TESTS) $(PYTEST_ARGS)

tsan: export FASTLAM_SANITIZE = thread
tsan: VARIANT = thread
tsan: build/tsan/venv/.built
	@build/tsan/venv/bin/python -m pytest tests/native/test_native.py -k thread $(PYTEST_ARGS)
	@LD_PRELOAD="$$(cc -print-file-name=libtsan.so)" TSAN_OPTIONS=die_after_fork=0:handle_segv=0:halt_on_error=1:suppressions=tools/tsan.supp \
	setarch -R build/tsan/venv/bin/python -m pytest $(CHECKED_TESTS) $(PYTEST_ARGS)

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src -name '*.so' -delete
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +
	rm -f src/fastlam/api/service_model.msgpack
