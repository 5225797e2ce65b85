"""Popular words: Faust agents and a streamkit job on one log; each reads what the other writes.

`faust -A jobs.popular_words worker` runs all three in one process.
"""

import faust

from jobs.word_count import job
from streamkit.hosts.faust import mount

POPULAR_COUNT = 3

app = faust.App(
    "popular_words",
    broker="streamkit+log://.streamkit",
    topic_partitions=2,
    topic_disable_leader=True,
)
typed = app.topic("typed", value_type=str, value_serializer="raw")
lines = app.topic("lines", value_serializer="raw")
word_counts = app.topic("word_counts", key_type=str, key_serializer="raw", value_serializer="json")
popular_words = app.topic("popular_words", key_serializer="raw", value_serializer="json")


@app.agent(typed)
async def tidy(texts: faust.StreamT[str]) -> None:
    """Faust to streamkit: what was typed becomes a line of the job, without its commas and full stops."""
    async for text in texts:
        await lines.send(value=text.replace(",", "").replace(".", "").encode())


mount(app, job)


@app.agent(word_counts)
async def announce(counts: faust.StreamT[int]) -> None:
    """Streamkit to Faust: a word that the job has counted often enough is announced."""
    async for word, count in counts.items():
        if count >= POPULAR_COUNT:
            await popular_words.send(key=word, value=count)
            app.log.info("popular: %s", word)
