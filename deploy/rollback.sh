#!/usr/bin/env bash
# metarec rollback under spark-submit: deploy/rollback.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" rollback_model "$@"
