"""Word count in Quix Streams: Python functions per record, one process, exactly-once."""

import json
import sys
import time
from importlib.metadata import version

from quixstreams import Application, State

options = dict(argument.split("=", 1) for argument in sys.argv[1:])
rows = int(options["rows"])
app = Application(
    broker_address=options["bootstrap"],
    consumer_group=options["id"],
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=1.0,
    state_dir=options["state"],
    loglevel="ERROR",
    # Its default of one second is spent idle at each end of a topic.
    consumer_poll_timeout=0.1,
)
half_seconds = 0.0
seen = 0


def count(_: str, state: State) -> int:
    """Count one word; stop after the last."""
    global seen, half_seconds  # a script, and its function is called by Quix alone
    total: int = state.get("total", 0) + 1
    state.set("total", total)
    seen += 1
    if seen == rows // 2:
        half_seconds = time.perf_counter()
    elif seen == rows:
        app.stop()
    return total


lines = app.topic(options["input"], value_deserializer="str", key_deserializer="bytes")
counts = app.topic(options["output"], value_serializer="json", key_serializer="str")
words = app.dataframe(lines).apply(lambda line: line.lower().split(), expand=True)
by_word = words.group_by(lambda word: word, name="by_word", key_serializer="str", key_deserializer="str")
by_word.apply(count, stateful=True).to_topic(counts)
app.run()
steady = (rows - rows // 2) / (time.perf_counter() - half_seconds)
print(json.dumps({"version": version("quixstreams"), "rows": seen, "steady_rows_per_second": steady, "dropped": 0}))
