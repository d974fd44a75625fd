"""metarec rollback: SPARK_MASTER=spark://HOST:7077 deploy/submit.sh rollback_model --config FILE.toml --ds YYYY-MM-DD

deploy/submit.sh passes settings, Delta's jars and this package as a zip to spark-submit; with DRY_RUN=1 it prints the command.
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["rollback", *sys.argv[1:]])
