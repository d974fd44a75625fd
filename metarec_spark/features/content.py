"""Item content: attributes and title words as a sparse TF-IDF vector, and the content vector of the item source."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from metarec_spark import columns as c

# Chinese characters, kana, Thai, Lao, Burmese and Khmer: scripts that put no blanks between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3041-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
)


def content(items: DataFrame, information: DataFrame) -> DataFrame:
    """Rows of ``item_content``.

    Tokens are attributes, prefixed with the domain because each platform has its own words for them, and :func:`title_words`,
    shared by all domains. A token's weight is its inverse document frequency log(1 + items / items with the token), both
    counted in the item's domain, so that a domain's weights do not depend on the other domains. An item's weights are scaled to
    unit length: the scalar product of two items is their cosine. A content vector that is not :func:`usable` is left out.

    Parameters
    ----------
    items
        Table ``items``.
    information
        (domain, item_id, title, attributes, content), at most one row per item.
    """
    known = items.join(information, [c.DOMAIN, c.ITEM_ID])
    attribute = F.transform(F.coalesce(c.ATTRIBUTES, F.array()), lambda a: F.concat(F.lit("a:"), F.col(c.DOMAIN), F.lit(":"), a))
    words = F.udf(title_words, "array<string>", useArrow=True)(F.coalesce(c.TITLE, F.lit("")))
    words = F.transform(words, lambda w: F.concat(F.lit("w:"), w))
    tokens = F.array_sort(F.array_distinct(F.filter(F.concat(attribute, words), lambda t: t.isNotNull())))
    known = known.withColumn("tokens", tokens)
    one = known.select(c.ITEM_IDX, c.DOMAIN, F.explode("tokens").alias("token"))
    total = items.groupBy(c.DOMAIN).agg(F.count("*").alias("total"))
    idf = one.groupBy(c.DOMAIN, "token").agg(F.count("*").alias("n")).join(F.broadcast(total), c.DOMAIN)
    idf = idf.select(c.DOMAIN, "token", F.log1p(F.col("total") / F.col("n")).alias("idf"))
    weighted = (
        one.join(idf, [c.DOMAIN, "token"])
        .groupBy(c.ITEM_IDX)
        .agg(F.sort_array(F.collect_list(F.struct("token", "idf"))).alias("bag"))
    )
    norm = F.sqrt(F.aggregate("bag", F.lit(0.0), lambda sum_, t: sum_ + t["idf"] * t["idf"]))
    weights = F.transform("bag", lambda t: (t["idf"] / norm).cast("float"))
    weighted = weighted.select(c.ITEM_IDX, weights.alias("weights"))
    rows = known.join(weighted, c.ITEM_IDX, "left")
    no_weights = F.array().cast("array<float>")
    return rows.select(
        *[c.ITEM_IDX, c.DOMAIN, c.TITLE, "tokens"],
        F.coalesce("weights", no_weights).alias("weights"),
        F.when(usable(F.col(c.CONTENT)), F.col(c.CONTENT)).alias("vector"),
    )


def title_words(title: str) -> list[str]:
    """Words of a title in lower case, compatibility characters folded (Unicode NFKC: full-width letters are letters).

    Where a script puts no blanks between words, each pair of neighbouring characters is a word: titles that share a word share
    its pairs.
    """
    words = []
    for match in _words().finditer(unicodedata.normalize("NFKC", title).lower()):
        word = match[0]
        words += [word[i : i + 2] for i in range(len(word) - 1)] if match["unspaced"] and len(word) > 2 else [word]
    return words


@cache
def _words() -> re.Pattern[str]:
    marks = "".join(chr(i) for i in range(0x10000) if unicodedata.category(chr(i)).startswith("M"))  # parts of letters
    return re.compile(f"(?P<unspaced>[{_UNSPACED}]+)|(?:[^\\W_{_UNSPACED}]|[{marks}])+")


def usable(vector: Column) -> Column:
    """Whether all numbers of a content vector are finite."""
    # Spark orders NaN above infinity.
    return F.forall(vector, lambda number: F.coalesce(F.abs(number) < F.lit(float("inf")), F.lit(False)))
