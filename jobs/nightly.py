r"""metarec nightly, under spark-submit:

spark-submit --properties-file deploy/spark-defaults.conf --py-files dist/metarec_spark.zip \
    jobs/nightly.py --config FILE.toml --ds YYYY-MM-DD
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["nightly", *sys.argv[1:]])
