#!/usr/bin/env bash
# Run a job under spark-submit: deploy/submit.sh JOB --config FILE.toml --ds YYYY-MM-DD [--set section.key=value ...]
#
# JOB is a file name in jobs/ without .py. From the environment:
#   SPARK_MASTER       local[*] by default; spark://HOST:PORT, yarn, k8s://...
#   SPARK_SUBMIT_ARGS  more options of spark-submit, such as "--conf spark.executor.memory=8g"; no secrets: everybody on the machine
#                      sees them. These go into $SPARK_CONF_DIR/spark-defaults.conf, readable by this user alone
#   SPARK_HOME         a Spark 4.0 of the cluster; by default the one in .venv
#   PYSPARK_PYTHON     Python of driver and executors, at the same path on each machine; by default the one in .venv
#   DRY_RUN            if set, print the command and do not run it
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
zip=$root/dist/metarec_spark.zip

usage() { echo "usage: deploy/submit.sh JOB ARGUMENTS...   JOB is one of: $(cd "$root/jobs" && ls -- *.py | sed 's/\.py$//' | tr '\n' ' ')" >&2; exit 2; }
[ $# -ge 1 ] && [ -f "$root/jobs/$1.py" ] || usage
job=$root/jobs/$1.py
shift
[ -x "$python" ] || { echo "$python is not there; run: make setup" >&2; exit 2; }
[ -f "$zip" ] || { echo "$zip is not there; run: make dist" >&2; exit 2; }

# Java, Delta's jars (fetched once, checked) and pyspark's own Spark.
{ read -r java; read -r jars; read -r spark; } < <("$python" -c '
import sys, pyspark
from metarec_spark.errors import MetarecError
from metarec_spark.runtime.cache import cache_folder
from metarec_spark.runtime.jars import ensure_jars
from metarec_spark.runtime.java import ensure_java
try:
    java = ensure_java(cache_folder())
    print(java, ",".join(map(str, ensure_jars(java))), pyspark.__path__[0], sep="\n")
except MetarecError as error:
    sys.exit(str(error))
') || exit 2

# In local mode nothing listens beyond this machine: driver, its web page and block manager bind to what this says. Scratch files,
# which hold rows of the tables, go into a folder of this user alone.
if [[ ${SPARK_MASTER:-local} == local* ]]; then
  export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
  if [ -z "${SPARK_LOCAL_DIRS:-}" ]; then
    scratch=${TMPDIR:-/tmp}/metarec-$(id -u)
    mkdir -m 700 -p "$scratch"
    [ -O "$scratch" ] && [ ! -L "$scratch" ] && chmod 700 "$scratch" || { echo "$scratch is another user's; set SPARK_LOCAL_DIRS to a folder of your own" >&2; exit 2; }
    export SPARK_LOCAL_DIRS=$scratch
  fi
fi
export PYTHONSAFEPATH=1 # Python imports nothing from the working directory
export JAVA_HOME=$java
export SPARK_HOME=${SPARK_HOME:-$spark}
export PYSPARK_PYTHON=${PYSPARK_PYTHON:-$python}
read -r -a more <<<"${SPARK_SUBMIT_ARGS:-}"

command=(
  "$SPARK_HOME/bin/spark-submit"
  --master "${SPARK_MASTER:-local[*]}"
  --properties-file "$root/deploy/spark-defaults.conf"
  --load-spark-defaults
  --jars "$jars"
  --py-files "$zip"
  "${more[@]}"
  "$job" "$@"
)
[ -z "${DRY_RUN:-}" ] || { printf '%q ' "${command[@]}"; echo; exit 0; }

# Java starts the job's Python. A signal to this script goes to that Python, which ends in order and says what happened.
set +e
stopped=
forward() { stopped=$1; pkill "-$1" -P "$java" python || kill "-$1" "$java"; }
"${command[@]}" <&0 &
java=$!
trap 'forward TERM' TERM
trap 'forward INT' INT
wait "$java"
code=$?
while [ -n "$stopped" ] && kill -0 "$java" 2>/dev/null; do wait "$java"; code=$?; done
exit "$code"
