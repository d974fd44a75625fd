#!/usr/bin/env bash
# metarec maintain under spark-submit: deploy/maintain.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" maintain_tables "$@"
