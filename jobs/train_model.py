r"""metarec train, under spark-submit:

spark-submit --properties-file deploy/spark-defaults.conf --py-files dist/metarec_spark.zip \
    jobs/train_model.py --config FILE.toml --ds YYYY-MM-DD
"""

import sys

from metarec_spark.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
