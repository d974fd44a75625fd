#!/usr/bin/env bash
# metarec adapt under spark-submit: deploy/adapt.sh --domain NAME --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" adapt_domain "$@"
