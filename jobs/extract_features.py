"""metarec extract: SPARK_MASTER=spark://HOST:7077 deploy/submit.sh extract_features --config FILE.toml --ds YYYY-MM-DD

deploy/submit.sh passes settings, Delta's jars and this package as a zip to spark-submit; with DRY_RUN=1 it prints the command.
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["extract", *sys.argv[1:]])
