"""User sampling: which users of other domains a candidate is trained on, drawn uniformly or by importance weights."""

from __future__ import annotations

from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import HashingTF, VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from metarec_spark import columns as c

_WORDS, _REGULARISATION, _MAX_WEIGHT = 512, 0.01, 100.0


def is_user_of(domain: str) -> Column:
    """Whether a user has an event in a domain."""
    return F.array_contains("active_domains", domain)


def sample_users(others: DataFrame, events: int, weight: Column | None = None, seed: int = 0) -> DataFrame:
    """Return users with at most ``events`` events in all, drawn without replacement; the same users for the same seed.

    Parameters
    ----------
    others
        Rows with user_id and an item_idx array.
    weight
        Importance weight of a user, greater than 0; None: all are equal.

    Notes
    -----
    Each user gets the key -log(u) / weight, u uniform, and the smallest keys are taken (Efraimidis & Spirakis, 2006). The keys
    are added up in one task, which spills to disk.
    """
    uniform = (F.pmod(F.xxhash64(F.lit(seed), c.USER_ID), F.lit(2**31)) + 0.5) / F.lit(2.0**31)
    keyed = others.withColumn("key", -F.log(uniform) / (F.lit(1.0) if weight is None else weight))
    before = Window.orderBy("key", c.USER_ID)
    size = keyed.select(c.USER_ID, "key", F.size(c.ITEM_IDX).alias("size"))
    taken = size.withColumn("sum", F.sum("size").over(before)).where(F.col("sum") <= events)
    return others.join(taken.select(c.USER_ID), c.USER_ID, "left_semi")


def importance_weights(users: DataFrame, content: DataFrame, domain: str) -> DataFrame:
    """Return (user_id, weight) of the users without an event in the domain; users who resemble the domain's weigh more.

    The weight is the density ratio p / (1 - p) = exp(logit), at most 100, of a logistic regression that separates the domain's
    users from the others by the words of their items, the number of their events and the time between them (Bickel, Brückner &
    Scheffer, 2009).

    Parameters
    ----------
    users
        Rows with user_id, active_domains and the sequence arrays.
    content
        Table ``item_content``.
    """
    event = users.select(c.USER_ID, F.explode(c.ITEM_IDX).alias(c.ITEM_IDX))
    words = event.join(content.select(c.ITEM_IDX, F.explode("tokens").alias("word")), c.ITEM_IDX)
    bags = words.where(F.col("word").startswith("w:")).groupBy(c.USER_ID).agg(F.collect_list("word").alias("words"))
    first, last = F.element_at(c.EVENT_TIME, 1), F.element_at(c.EVENT_TIME, -1)
    size = F.size(c.ITEM_IDX)
    rows = users.where(size > 0).select(
        c.USER_ID,
        is_user_of(domain).cast("int").alias("label"),
        F.log1p(size).alias("length"),
        F.log1p((F.unix_timestamp(last) - F.unix_timestamp(first)) / size).alias("pace"),
    )
    rows = rows.join(bags, c.USER_ID, "left").withColumn("words", F.coalesce("words", F.array().cast("array<string>")))
    rows = HashingTF(numFeatures=_WORDS, binary=True, inputCol="words", outputCol="hashed").transform(rows)
    rows = VectorAssembler(inputCols=["length", "pace", "hashed"], outputCol="features").transform(rows).persist()
    try:
        ((share,),) = rows.agg(F.avg("label")).collect()
        balanced = rows.withColumn("balance", F.when(F.col("label") == 1, 1 - share).otherwise(share))
        classifier = LogisticRegression(regParam=_REGULARISATION, weightCol="balance", maxIter=50).fit(balanced)
        # By its coefficients: the classifier's own transform holds the session, which cannot be sent to executors.
        coefficients = F.array(*[F.lit(float(value)) for value in classifier.coefficients])
        products = F.zip_with(vector_to_array(F.col("features")), coefficients, lambda x, w: x * w)
        logit = F.aggregate(products, F.lit(float(classifier.intercept)), lambda total, product: total + product)
        weights = rows.where("label = 0").select(c.USER_ID, F.least(F.exp(logit), F.lit(_MAX_WEIGHT)).alias("weight"))
        return weights.localCheckpoint()
    finally:
        rows.unpersist()
