# make demo and make test do all set-up themselves, once; what they fetch is cached and used without network afterwards.
SHELL := /bin/bash
RUN := .venv/bin

.PHONY: setup benchmark demo test check types drill lint docs dist clean
setup: .venv/.complete

.venv/.complete: pyproject.toml deploy/setup.sh
	deploy/setup.sh
	touch $@

# Quality on a log: make benchmark LOGS="DIR DIR …", each with events.parquet and items.parquet.
benchmark: setup
	$(RUN)/python benchmarks/protocol.py --log $(LOGS)

demo: setup
	$(RUN)/metarec demo

# Everything: each file's tests in one worker, the longest files first (tests/conftest.py).
PYTEST := $(RUN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: setup dist types
	$(PYTEST)

# After an edit: what needs neither whole jobs nor processes nor a cluster.
check: setup types
	$(PYTEST) -m "unit or spark"

types: setup
	$(RUN)/ruff check metarec_spark jobs tests benchmarks
	$(RUN)/mypy

# Every job is killed, again and again, and run to its end: make drill KILLS=100
KILLS := 100
drill: setup
	PYTHONPATH=tests $(RUN)/python -m faults.drill --kills $(KILLS)

lint: setup
	$(RUN)/ruff format metarec_spark jobs tests benchmarks
	$(RUN)/ruff check --fix metarec_spark jobs tests benchmarks

# Generated pages, then all pages as HTML in dist/site.
docs: setup
	$(RUN)/python docs/generate.py
	$(RUN)/mkdocs build --strict

dist: dist/metarec_spark.zip

dist/metarec_spark.zip: $(shell find metarec_spark schemas -name '*.py' -o -name '*.json' -o -name '*.j2')
	mkdir -p dist
	python3 deploy/zip.py $@

clean:
	rm -rf dist warehouse .pytest_cache .ruff_cache
