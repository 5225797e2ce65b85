"""Coroutines run on one loop; on a manual clock they take no time that nobody waits for."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from streamkit.seams import ManualClock, ManualEventLoop, ThreadEventLoop


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ms=1_700_000_000_000)


@pytest.fixture
def manual(clock: ManualClock) -> Iterator[ManualEventLoop]:
    made = ManualEventLoop(clock)
    yield made
    made.close()


@pytest.fixture
def threaded() -> Iterator[ThreadEventLoop]:
    made = ThreadEventLoop()
    yield made
    made.close()


async def itself() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def for_ever(ended: threading.Event, began: threading.Event) -> None:
    began.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


def test_pauses_move_a_manual_clock_to_their_end_at_once(manual: ManualEventLoop, clock: ManualClock) -> None:
    async def pauses() -> list[int]:
        async def one(ms: int) -> int:
            await asyncio.sleep(ms / 1000)
            return clock.now_ms() - 1_700_000_000_000

        return list(await asyncio.gather(*map(one, (7000, 1, 3_600_000, 0))))

    assert manual.start(pauses()).result() == [7000, 1, 3_600_000, 0]
    assert clock.now_ms() == 1_700_003_600_000


def test_a_manual_clock_stands_still_while_a_thread_works(manual: ManualEventLoop, clock: ManualClock) -> None:
    go = threading.Event()

    async def works() -> str:
        async with asyncio.timeout(60):
            asyncio.get_running_loop().call_soon(go.set)
            await asyncio.to_thread(go.wait)
        return "done"

    assert manual.start(works()).result() == "done"
    assert clock.now_ms() == 1_700_000_000_000


def test_an_exception_is_the_result_on_either_loop(manual: ManualEventLoop, threaded: ThreadEventLoop) -> None:
    async def fails() -> None:
        raise ValueError("no")

    for loop in (manual, threaded):
        with pytest.raises(ValueError, match="no"):
            loop.start(fails()).result()


def test_coroutines_of_all_threads_share_one_loop(threaded: ThreadEventLoop) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    threads = [threading.Thread(target=lambda: loops.append(threaded.start(itself()).result())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 4
    assert len(set(loops)) == 1


def test_cancelling_a_result_cancels_its_coroutine(threaded: ThreadEventLoop) -> None:
    began, ended = threading.Event(), threading.Event()
    running = threaded.start(for_ever(ended, began))
    assert began.wait(60)
    running.cancel()
    assert ended.wait(60)


def test_closing_cancels_what_runs_and_a_closed_loop_may_begin_anew() -> None:
    began, ended = threading.Event(), threading.Event()
    loop = ThreadEventLoop()
    loop.close()
    running = loop.start(for_ever(ended, began))
    assert began.wait(60)
    loop.close()
    assert ended.is_set()
    assert running.cancelled()
    assert not [thread for thread in threading.enumerate() if thread.name == "streamkit-coroutines"]
    assert loop.start(itself()).result().is_running()
    loop.close()
    loop.close()
