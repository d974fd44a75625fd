"""metarec adapt: SPARK_MASTER=spark://HOST:7077 deploy/submit.sh adapt_domain --config FILE.toml --ds YYYY-MM-DD --domain NAME

submit.sh gives spark-submit the settings, Delta's jars and this package as a zip; it prints the line with DRY_RUN=1.
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["adapt", *sys.argv[1:]])
