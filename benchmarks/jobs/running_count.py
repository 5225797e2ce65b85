"""The records of each key, counted as they come: for latency, and for how fast a worker is back."""

from streamkit import Job

job = Job("running_count")
records = job.stream("clicks", key=str, value=bytes)

records.group_by_key().count(name="counts").to("running_counts")
