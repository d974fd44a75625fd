"""Guess which column of a file is which, from names and values. No Spark here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from metarec_spark import columns as c
from metarec_spark.sources.times import TimeReader

_MOST_PLATFORMS = 100
_LEAST_READ = 0.9
"""Share of the values of a time column that must be times."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    c.USER_ID: (
        *(
            "userid",
            "user",
            "uid",
            "username",
            "customerid",
            "customer",
            "memberid",
            "member",
            "accountid",
            "account",
            "clientid",
        ),
        *("client", "buyerid", "visitorid", "visitor", "personid", "person", "reviewerid", "viewerid", "listenerid", "readerid"),
        *(
            "subscriberid",
            "subscriber",
            "profileid",
            "shopperid",
            "consumerid",
            "cookieid",
            "anonymousid",
            "deviceid",
            "sessionid",
        ),
        *("session", "customerno", "customercode", "customernumber", "steamid", "cid", "uuid"),
    ),
    c.ITEM_ID: (
        *("itemid", "item", "productid", "product", "sku", "asin", "parentasin", "articleid", "article", "movieid", "movie"),
        *("filmid", "videoid", "video", "trackid", "track", "songid", "song", "artistid", "artist", "albumid", "bookid", "isbn"),
        *(
            "contentid",
            "postid",
            "newsid",
            "listingid",
            "propertyid",
            "hotelid",
            "placeid",
            "venueid",
            "locationid",
            "businessid",
        ),
        *("poiid", "gameid", "appid", "recipeid", "courseid", "adid", "offerid", "goodsid", "objectid", "pageid", "url", "iid"),
        *("stockcode", "productcode", "itemcode", "productno", "itemno", "animeid", "trackuri", "upc", "ean"),
    ),
    c.EVENT_TIME: (
        *(
            "eventtime",
            "timestamp",
            "ts",
            "time",
            "datetime",
            "eventtimestamp",
            "eventdate",
            "createdat",
            "occurredat",
            "servertime",
        ),
        *(
            "unixreviewtime",
            "ratedat",
            "purchasedat",
            "orderedat",
            "invoicedate",
            "orderdate",
            "reviewtime",
            "at",
            "when",
            "date",
        ),
    ),
    c.EVENT_TYPE: ("eventtype", "event", "action", "actiontype", "eventname", "behaviortype", "behavior", "behaviour", "type"),
    c.VALUE: ("value", "rating", "score", "stars", "overall", "amount", "price", "quantity", "dwell", "dwelltime", "playcount"),
    c.DOMAIN: ("domain", "platform", "site", "app", "marketplace", "store", "shop", "service", "channel"),
    c.TITLE: (
        *("title", "name", "productname", "itemname", "productdisplayname", "headline", "moviename", "label", "movietitle"),
        *("producttitle", "itemtitle", "booktitle", "songtitle", "tracktitle", "songname", "trackname", "artistname"),
    ),
    c.ATTRIBUTES: ("attributes", "categories", "genres", "tags", "category", "genre", "brand", "keywords", "class"),
    c.CONTENT: ("content", "embedding", "vector", "features"),
}
"""Our name → what files call it, small letters and digits alone, the likeliest first."""
ATTRIBUTES = frozenset(
    (
        *("artist", "artists", "author", "authors", "brand", "brandname", "categories", "category", "categoryname"),
        *("city", "class", "collection", "color", "colour", "company", "country", "department", "developer"),
        *("director", "format", "gender", "genre", "genres", "keywords", "label", "language", "maincategory"),
        *("maincat", "manufacturer", "material", "platform", "publisher", "season", "section", "seller", "shop"),
        *("size", "studio", "style", "subcategory", "tag", "tags", "theme", "topic", "type"),
    )
)
"""What files call columns with attributes, as above."""
NUMBERS = frozenset(("price", "cost", "listprice", "saleprice", "duration", "length", "pages", "runtime", "year", "releaseyear"))
"""What files call columns with numbers that tell items apart, as above."""

_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S")
_DATES = {
    "day first": ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%y", "%d.%m.%y"),
    "month first": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y"),
    "year first": ("%y-%m-%d", "%y/%m/%d", "%Y_%m_%d"),
}
_READER = TimeReader("auto", None, "UTC")


@dataclass(frozen=True)
class TimeForms:
    """How times in text can be read."""

    formats: tuple[str, ...]
    """Formats of ``strptime`` that read every value, one for each order of day and month; none are needed if ``read``."""
    read: bool
    """Whether the product reads the times without a format."""


def plain(name: str) -> str:
    """Return a name's small letters and digits."""
    return re.sub(r"[\W_]+", "", name.casefold())


def guess_more(names: Sequence[str], values: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return which of a catalogue's columns hold attributes, and which hold numbers; parameters as of :func:`guess_columns`."""
    known = {name: plain(name.rpartition(".")[2]) for name in names if values.get(name)}
    numbers = [name for name, spelled in known.items() if spelled in NUMBERS and all(_is_number(v) for v in values[name])]
    return [name for name, spelled in known.items() if spelled in ATTRIBUTES], numbers


def guess_columns(names: Sequence[str], values: Mapping[str, Sequence[str]], roles: Sequence[str]) -> dict[str, str]:
    """Return which of a file's columns has which role; a role that no column fits is left out.

    Parameters
    ----------
    names
        Dotted paths of the file's columns.
    values
        Some values of each column, as text.
    roles
        Names of ours to look for, the most important first.
    """
    by_role: dict[str, str] = {}
    for role in roles:
        free = [name for name in names if name not in by_role.values()]
        fits = [name for name in _by_name(free, role) if _usable(role, values.get(name, ()))]
        if not fits and role == c.EVENT_TIME:
            fits = [name for name in free if _all_times(values.get(name, ()))]
            fits = fits if len(fits) == 1 else []
        if fits:
            by_role[role] = fits[0]
    return by_role


def _by_name(names: Sequence[str], role: str) -> list[str]:
    """Return the columns whose whole path, or the end of it, is a spelling of the role, the likeliest first."""
    ranked = []
    for name in names:
        parts = re.sub(r":\w+$", "", name).split(".")  # user_id:token names a type too
        for depth in range(len(parts)):
            spelled = plain("".join(parts[depth:]))
            if spelled in SPELLINGS[role]:
                ranked.append((spelled != plain(role), depth, SPELLINGS[role].index(spelled), name))
                break
    return [name for *_, name in sorted(ranked)]


def _usable(role: str, values: Sequence[str]) -> bool:
    if not values:
        return role not in (c.USER_ID, c.ITEM_ID, c.EVENT_TIME)
    if role == c.EVENT_TIME:
        forms = time_forms(values)
        return forms.read or bool(forms.formats)
    if role in (c.DOMAIN, c.EVENT_TYPE):
        return len(set(values)) <= min(_MOST_PLATFORMS, max(2, len(values) // 2)) and not all(_is_number(v) for v in values)
    if role == c.VALUE:
        return all(_is_number(value) for value in values)
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _all_times(values: Sequence[str]) -> bool:
    return len(values) > 1 and time_forms(values).read


def time_forms(values: Sequence[str]) -> TimeForms:
    """Return how the values of a column can be read as times."""
    if not values:
        return TimeForms((), read=False)
    if sum(_READER(value) is not None for value in values) >= _LEAST_READ * len(values):
        return TimeForms((), read=True)
    fits = []
    for dates in _DATES.values():
        formats = (date + clock for date in dates for clock in _CLOCKS)
        fit = next((form for form in formats if sum(_reads(form, v) for v in values) >= _LEAST_READ * len(values)), None)
        fits += [(fit, sum(_reads(fit, value) for value in values))] if fit else []
    most = max((count for _, count in fits), default=0)
    return TimeForms(tuple(form for form, count in fits if count == most), read=False)


def _reads(form: str, text: str) -> bool:
    try:
        datetime.strptime(text.strip(), form)
    except ValueError:
        return False
    return True
