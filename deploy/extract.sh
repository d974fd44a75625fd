#!/usr/bin/env bash
# metarec extract under spark-submit: deploy/extract.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" extract_features "$@"
