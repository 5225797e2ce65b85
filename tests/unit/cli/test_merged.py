"""What several workers say of themselves, put together."""

from streamkit.cli.workers import merged_progress, merged_summary
from streamkit.runtime import Progress, Summary


def progress(records: int, watermark_ms: int | None) -> Progress:
    return Progress(
        records_in=records,
        records_out=2 * records,
        late=1,
        seconds=float(records),
        lag=3,
        watermark_ms=watermark_ms,
        state_bytes=10,
    )


def summary(records: int, *, finished: bool, already: bool = False) -> Summary:
    return Summary(records_in=records, records_out=1, late=2, seconds=9.0, finished=finished, already_finished=already)


def test_progress_adds_up_and_the_slowest_watermark_counts() -> None:
    merged = merged_progress([progress(5, 100), progress(7, 40)])
    assert (merged.records_in, merged.records_out, merged.late, merged.lag) == (12, 24, 2, 6)
    assert (merged.seconds, merged.watermark_ms, merged.state_bytes) == (7.0, 40, 20)


def test_a_worker_without_a_watermark_yet_leaves_none() -> None:
    assert merged_progress([progress(5, 100), progress(0, None)]).watermark_ms is None


def test_a_run_is_finished_if_it_is_for_all_and_was_before_if_it_was_for_all() -> None:
    merged = merged_summary([summary(5, finished=True), summary(0, finished=False, already=True)], seconds=3.0)
    assert (merged.records_in, merged.late, merged.seconds) == (5, 4, 3.0)
    assert merged.finished
    assert not merged.already_finished
    assert not merged_summary([summary(5, finished=True), summary(1, finished=False)], seconds=1.0).finished


def test_where_no_worker_did_anything_nothing_is_finished() -> None:
    merged = merged_summary([], seconds=1.0)
    assert (merged.records_in, merged.finished, merged.already_finished) == (0, False, False)
