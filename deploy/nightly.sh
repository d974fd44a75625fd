#!/usr/bin/env bash
# metarec nightly under spark-submit: deploy/nightly.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" nightly "$@"
