"""A power cut between any two of the embedded broker's writes: every transaction is whole or not there at all.

The workload runs once for each change it makes to the file system, and dies just before that change. What was not
synced is then lost, kept, or kept in part; the log is opened again and judged. Rules D4, D7 and D9.
"""

import pytest
from crashes import Power, PowerCut, Told, goes_on, judge, keepers, opened, set_up, workload

from streamkit.seams import MemoryFileSystem


def change_count() -> int:
    power = Power()
    _, broker = set_up(power)
    before = power.changes
    workload(broker, Told())
    return power.changes - before


def crashed_at(crash_index: int) -> tuple[MemoryFileSystem, Told]:
    power, told = Power(), Told()
    fs, broker = set_up(power)
    power.cut_at = power.changes + crash_index + 1
    with pytest.raises(PowerCut):
        workload(broker, told)
    return fs, told


@pytest.mark.slow
def test_a_crash_between_any_two_writes_leaves_each_transaction_whole_or_absent() -> None:
    count = change_count()
    assert count > 100, "the workload shrank"
    outcomes: set[int] = set()
    for crash_index in range(count):
        fs, told = crashed_at(crash_index)
        for _, keep in keepers(crash_index):
            after_fs = fs.crashed(keep)
            after = opened(after_fs)
            names = judge(after, told)
            outcomes.add(len(names) - len(told.committed))
            assert judge(opened(after_fs.crashed()), told) == names, "a second power cut took something back"
            goes_on(after, told.after(names))
            after.close()
    assert outcomes == {0, 1}, "some crashes must fall just before and just after a commit point"


@pytest.mark.slow
def test_a_crash_during_the_recovery_of_a_crash_changes_nothing() -> None:
    count = change_count()
    for crash_index in range(0, count, 7):
        fs, told = crashed_at(crash_index)
        reference = opened(fs.crashed())
        names = judge(reference, told)
        power = Power()
        opened(fs.crashed(observe=power))
        for cut_at in range(1, power.changes + 1):
            again = Power()
            again.cut_at = cut_at
            half_recovered = fs.crashed(observe=again)
            with pytest.raises(PowerCut):
                opened(half_recovered)
            keep = next(keep for label, keep in keepers(cut_at) if label == "a part")
            after = opened(half_recovered.crashed(keep))
            assert judge(after, told) == names


def test_a_process_that_dies_without_a_power_cut_leaves_the_same_choice() -> None:
    """SIGKILL keeps the page cache: everything written is there, synced or not."""
    for crash_index in range(0, change_count(), 3):
        fs, told = crashed_at(crash_index)
        killed = opened(fs.crashed(lambda path, extra_bytes: extra_bytes))
        judge(killed, told)
        killed.close()
