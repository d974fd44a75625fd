#!/usr/bin/env bash
# metarec recommend under spark-submit: deploy/recommend.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" recommend_batch "$@"
