#!/usr/bin/env bash
# metarec train under spark-submit: deploy/train.sh --config FILE.toml --ds YYYY-MM-DD
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" train_model "$@"
