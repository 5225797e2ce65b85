"""What a run on a shared log takes over from its job, and what it leaves there."""

from streamkit import Job
from streamkit.broker import open_broker
from streamkit.files.apart import named_apart, remove_topics
from streamkit.topology import compile_graph


def test_a_job_under_another_name_does_the_same_with_bad_records() -> None:
    job = Job("copying", on_error="skip")
    job.stream("lines", value=str).to("copies")
    apart = named_apart(compile_graph(job.build()), "copying-1", {"lines"}).graph
    assert apart.policies() == {"copying-1-lines": "skip"}
    assert apart.on_error == "skip", "of the results of tables too"


def test_a_run_removes_its_dead_letters_and_none_of_another() -> None:
    log = open_broker("memory://")
    for topic in ("copying-1.dead_letter", "copying-1-lines", "copying.dead_letter", "copying-11.dead_letter"):
        log.admin.create_topic(topic, 1)
    remove_topics(log, "copying-1")
    assert sorted(log.admin.describe_topics()) == ["copying-11.dead_letter", "copying.dead_letter"]
    log.close()
