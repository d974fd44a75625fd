"""Column, table and scorer names, each spelled once."""

# Events and items as they arrive and as they are stored.
USER_ID = "user_id"
ITEM_ID = "item_id"
DOMAIN = "domain"
EVENT_TYPE = "event_type"
EVENT_TIME = "event_time"
EVENT_DATE = "event_date"
VALUE = "value"
SOURCE = "source"
FILE = "file"
REASON = "reason"
TITLE = "title"
ATTRIBUTES = "attributes"
CONTENT = "content"
ITEM_IDX = "item_idx"
LISTED = "listed"
GROUP = "group"

# Tables under the warehouse.
EVENTS = "events"
REJECTED_EVENTS = "rejected_events"
QUALITY = "quality"
INGESTED = "ingested"
STOPPED_DAYS = "stopped_days"
ITEMS = "items"
USER_SEQUENCES = "user_sequences"
ITEM_TRANSITIONS = "item_transitions"
ITEM_CONTENT = "item_content"
FORGOTTEN = "forgotten"  # also the outcome of these users' rows
MODELS = "models"
METRICS = "metrics"
WITHHELD = "withheld"
RECOMMENDATIONS = "recommendations"
FEEDBACK = "feedback"
TRANSFER_RUNS = "transfer_runs"
RUNS = "runs"

# Every table, in the order of the data flow, with the command that writes it.
WRITTEN_BY = {
    EVENTS: "extract",
    REJECTED_EVENTS: "extract",
    QUALITY: "extract",
    INGESTED: "extract",
    STOPPED_DAYS: "extract",
    ITEMS: "extract",
    USER_SEQUENCES: "extract",
    ITEM_TRANSITIONS: "extract",
    ITEM_CONTENT: "extract",
    FORGOTTEN: "forget",
    MODELS: "train",
    METRICS: "evaluate",
    WITHHELD: "recommend",
    RECOMMENDATIONS: "recommend",
    FEEDBACK: "feedback",
    TRANSFER_RUNS: "adapt",
    RUNS: "nightly",
}
ALL = tuple(WRITTEN_BY)

# Splits of a user's events.
TRAIN = "train"
VALIDATION = "validation"
TEST = "test"

# Scorers that evaluation puts side by side.
MODEL = "model"  # h
ENCODER = "encoder"  # f alone
TRANSITIONS_TUNED = "transitions_tuned"  # g alone, tuned
TRANSITIONS = "transitions"  # g as configured
POPULARITY = "popularity"
OWN_ITEMS = "own_items"  # own items by decayed count, then popularity
ITEM_NEIGHBOURS = "item_neighbours"  # cosine of two items' users
ALS = "als"
EASE = "ease"  # on platforms that are small enough
BASELINES = (TRANSITIONS, POPULARITY, OWN_ITEMS, ITEM_NEIGHBOURS, ALS, EASE)
SCORERS = (MODEL, ENCODER, TRANSITIONS_TUNED, *BASELINES)
