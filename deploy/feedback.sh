#!/usr/bin/env bash
# metarec feedback under spark-submit: deploy/feedback.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" collect_feedback "$@"
