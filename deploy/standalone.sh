#!/usr/bin/env bash
# A Spark standalone cluster on this machine: deploy/standalone.sh start | stop
#
# One master and two workers of one core each, on the loopback address only. From the environment:
#   MASTER_PORT 7077, MASTER_UI_PORT 8080, WORKER_UI_PORT 8081 (the second worker takes the next one)
#   WORKER_MEMORY 1g, STANDALONE_FOLDER .cache/standalone (logs, process ids, work folders)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
folder=${STANDALONE_FOLDER:-$root/.cache/standalone}
port=${MASTER_PORT:-7077}
master_ui=${MASTER_UI_PORT:-8080}
worker_ui=${WORKER_UI_PORT:-8081}
names=(worker-2 worker-1 master)

alive() { [ -f "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null; }

launch() { # NAME CLASS ARGUMENTS...
  local name=$1
  shift
  setsid "$SPARK_HOME/bin/spark-class" "$@" >"$folder/$name.log" 2>&1 </dev/null &
  echo $! >"$folder/$name.pid"
}

wait_for() { # NAME TIMES TEXT: until NAME's log says TEXT that often
  for _ in $(seq 120); do
    [ "$(grep -c -- "$3" "$folder/$1.log" 2>/dev/null || true)" -ge "$2" ] 2>/dev/null && return
    alive "$1" || break
    sleep 0.5
  done
  echo "$1 did not come up; the end of $folder/$1.log:" >&2
  tail -n 5 "$folder/$1.log" >&2
  stop
  exit 1
}

start() {
  for name in "${names[@]}"; do
    alive "$name" && { echo "$name runs already (process $(cat "$folder/$name.pid")); stop it with: deploy/standalone.sh stop" >&2; exit 1; }
  done
  mkdir -p "$folder"
  rm -f "$folder"/*.log
  { read -r java; read -r spark; } < <("$python" -c '
import pyspark
from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.java import ensure_java
print(ensure_java(cache_folder()), pyspark.__path__[0], sep="\n")')
  export JAVA_HOME=$java SPARK_HOME=${SPARK_HOME:-$spark}
  # Spark binds its ports, web pages included, to this address alone.
  export SPARK_LOCAL_IP=127.0.0.1 SPARK_LOCAL_HOSTNAME=127.0.0.1 SPARK_DAEMON_MEMORY=512m
  launch master org.apache.spark.deploy.master.Master --host 127.0.0.1 --port "$port" --webui-port "$master_ui"
  wait_for master 1 "New state: ALIVE"
  for number in 1 2; do
    launch "worker-$number" org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --cores 1 --memory "${WORKER_MEMORY:-1g}" \
      --work-dir "$folder/work-$number" --webui-port $((worker_ui + number - 1)) "spark://127.0.0.1:$port"
  done
  wait_for master 2 "Registering worker"
  echo "spark://127.0.0.1:$port with two workers; pages on http://127.0.0.1:$master_ui; logs in $folder"
}

stop() {
  for name in "${names[@]}"; do
    alive "$name" && kill "$(cat "$folder/$name.pid")"
  done
  for name in "${names[@]}"; do
    for _ in $(seq 40); do
      alive "$name" || break
      sleep 0.25
    done
    alive "$name" && kill -9 "$(cat "$folder/$name.pid")"
    rm -f "$folder/$name.pid"
  done
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) echo "usage: deploy/standalone.sh start | stop" >&2; exit 2 ;;
esac
