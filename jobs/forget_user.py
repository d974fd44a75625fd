"""metarec forget: SPARK_MASTER=spark://HOST:7077 deploy/submit.sh forget_user --config FILE.toml --users FILE

deploy/submit.sh passes settings, Delta's jars and this package as a zip to spark-submit; with DRY_RUN=1 it prints the command.
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["forget", *sys.argv[1:]])
