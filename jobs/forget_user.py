"""metarec forget: SPARK_MASTER=spark://HOST:7077 deploy/submit.sh forget_user --config FILE.toml --users FILE

submit.sh gives spark-submit the settings, Delta's jars and this package as a zip; it prints the line with DRY_RUN=1.
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["forget", *sys.argv[1:]])
