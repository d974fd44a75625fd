#!/usr/bin/env bash
# metarec evaluate under spark-submit: deploy/evaluate.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" evaluate_model "$@"
