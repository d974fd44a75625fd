"""Nothing of the working directory is run: neither jars by Spark's defaults nor Python modules by Python's."""

from __future__ import annotations

import os

ISOLATED = {
    "spark.driver.defaultExtraClassPath": "",  # by default a folder relative to the working directory
    "spark.executor.defaultExtraClassPath": "",
    "spark.executorEnv.PYTHONSAFEPATH": "1",
}
"""Spark settings; deploy/spark-defaults.conf has them too."""


def isolated_environment() -> dict[str, str]:
    """This process's environment for Python processes that import nothing from the working directory."""
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    if path := environment.pop("PYTHONPATH", ""):  # an empty part of it means the working directory
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path.split(os.pathsep)))
    return environment
