#!/usr/bin/env bash
# A command for cron, for yesterday (UTC): deploy/cron.sh COMMAND [ARGUMENTS...]
#
# COMMAND is one of the scripts here: nightly, feedback, maintain. Its result, one JSON line, is appended to $LOGS/COMMAND.jsonl, its log
# to $LOGS/COMMAND.log. If it fails, this run's own result and last log lines are printed, which cron mails, and its exit code is
# returned. Commands wait for each other at the warehouse: no other lock is needed. From the environment:
#   CONFIG   the configuration, a TOML file
#   LOGS     a folder that this user may write
#   DS       the day, by default yesterday
set -uo pipefail
umask 027

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] && [ -x "$here/$1.sh" ] || { echo "usage: deploy/cron.sh COMMAND [ARGUMENTS...]" >&2; exit 2; }
[ -n "${CONFIG:-}" ] && [ -n "${LOGS:-}" ] || { echo "deploy/cron.sh: set CONFIG and LOGS" >&2; exit 2; }
command=$1
shift
ds=${DS:-$(date -u -d yesterday +%F)}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

result=$("$here/$command.sh" --config "$CONFIG" --ds "$ds" "$@" 2>"$log" | tail -n 1)
code=$?
cat "$log" >>"$LOGS/$command.log"
[ -z "$result" ] || printf '%s\n' "$result" >>"$LOGS/$command.jsonl"
[ "$code" -eq 0 ] && exit 0
echo "metarec $command of $ds ended with exit code $code: 2 configuration, 3 data, 4 model rejected, 5 waited too long, 1 other, 128 + n signal n"
printf '%s\n' "${result:-It left no result: it was killed, or could not start.}"
tail -n 5 "$log"
exit "$code"
