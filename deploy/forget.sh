#!/usr/bin/env bash
# metarec forget under spark-submit: deploy/forget.sh --config FILE.toml --users FILE
exec "$(dirname "${BASH_SOURCE[0]}")/submit.sh" forget_user "$@"
