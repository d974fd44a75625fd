#!/usr/bin/env bash
# metarec adapt under spark-submit: deploy/adapt.sh --config FILE.toml --ds YYYY-MM-DD --domain NAME
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" adapt_domain "$@"
