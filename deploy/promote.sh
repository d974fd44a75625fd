#!/usr/bin/env bash
# metarec promote under spark-submit: deploy/promote.sh --config FILE.toml --ds YYYY-MM-DD --model ID
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" promote_model "$@"
