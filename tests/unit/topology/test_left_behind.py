"""Which internal topics of a job belong to nothing that it has."""

from streamkit import Job
from streamkit.topology import compile_graph
from streamkit.topology.left_behind import left_behind


def test_changelogs_and_shuffles_that_a_job_does_not_have_are_left_behind() -> None:
    job = Job("counting")
    job.stream("words", value=str).group_by(str, name="by_word").count(name="counts").to("counting-counts")
    internal = ["counting-by_word-repartition", "counting-counts-changelog"]
    left = ["counting-by_line-repartition", "counting-sums-changelog"]
    others = ["words", "counting-counts", "countings-sums-changelog", "counting.dead_letter", "counting-replay"]
    assert left_behind(compile_graph(job.build()), [*others, *internal, *reversed(left)]) == left
