# `make run` serves a directory and `make test` runs every check; each does all its own set-up.

DIR ?= ./rpm
LISTEN ?= 127.0.0.1:8080
# A command for the shell, because the recipe may install the first Python that fits.
PYTHON ?= $$(for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
PIP_INSTALL = .venv/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt

.PHONY: run test check rpm test-packaging soak bench bench-doors clean

run: .venv/run.stamp
	@mkdir -p $(DIR)
	.venv/bin/repowatch serve --listen $(LISTEN) $(DIR)

test:
	tests/setup-debian test
	$(MAKE) --no-print-directory check
	.venv/bin/python -m pytest

check: .venv/test.stamp
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict
	.venv/bin/lint-imports --no-logo

# The RPM and the source RPM, for the python of this machine, in dist/.
rpm:
	tests/setup-debian rpm
	packaging/rpm/build

# Builds it, boots machines that install it, and uses, breaks, upgrades and erases it. As root, a few minutes.
test-packaging: .venv/test.stamp
	tests/setup-debian packaging
	REPOWATCH_PACKAGING=1 .venv/bin/python -m pytest tests/packaging

# Faults at every step, thousands of publications, slow readers of a large repository: about an hour.
soak: .venv/test.stamp
	REPOWATCH_FAULTS=all .venv/bin/python -m pytest tests/faults

# What one more package costs, side by side with the peers; writes docs/benchmarks.md.
bench: .venv/test.stamp
	$(PIP_INSTALL) --requirement benchmarks/requirements.txt
	.venv/bin/python -m benchmarks

# The doors, side by side with Apache and nginx; writes docs/benchmarks-doors.md.
bench-doors: .venv/test.stamp
	tests/setup-debian doors
	.venv/bin/python -m benchmarks.doors

# The packages below DIR are the user's, not ours.
clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	find repowatch tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml constraints.txt
	tests/setup-debian run
	@python=$(PYTHON); test -n "$$python" || { \
		echo 'repowatch needs Python 3.11 or newer with its venv module: install it, or say make PYTHON=/path/to/python' >&2; \
		exit 1; }; \
	"$$python" -m venv .venv
	$(PIP_INSTALL) --editable .
	@test -e /usr/lib/rpm/rpmrc && .venv/bin/python -c 'import createrepo_c' 2>/dev/null || { \
		echo 'createrepo_c needs the glib2 library and /usr/lib/rpm/rpmrc of this machine:' \
			'install libglib2.0-0 and rpm-common (Debian, Ubuntu) or glib2 and rpm (elsewhere)' >&2; \
		exit 1; }
	@touch $@

.venv/test.stamp: .venv/run.stamp
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@
