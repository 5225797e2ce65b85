"""Topic names, configs, and the file that keeps them."""

import pytest

from streamkit.broker.topics import Topic, TopicTable
from streamkit.broker.whole_file import read_whole, write_whole
from streamkit.errors import ConfigError, CorruptBatchError, LogError
from streamkit.seams import MemoryFileSystem

PATH = "log/topics"


def topic(name: str) -> Topic:
    return Topic(name=name, topic_id=f"id of {name}", partition_count=2, config={"retention.ms": "-1"})


def test_topics_are_read_back_as_they_were_put() -> None:
    fs = MemoryFileSystem()
    table = TopicTable(fs, PATH)
    assert not table.found
    table.put(topic("a"))
    table.put(topic("b"))
    table.drop("a")
    table.put(topic("c").as_unfinished())
    again = TopicTable(fs.crashed(), PATH)
    assert again.found
    assert again.all() == [topic("b")]
    assert again.unfinished() == [topic("c").as_unfinished()]
    assert again.get("b") == topic("b")
    assert again.get("c") is None


def test_topics_that_differ_in_case_only_are_refused() -> None:
    table = TopicTable(MemoryFileSystem(), PATH)
    table.put(topic("orders"))
    with pytest.raises(ConfigError, match="case"):
        table.check_new("Orders", 1, {})


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_a_partition_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=str(count)):
        TopicTable(MemoryFileSystem(), PATH).check_new("a", count, {})


def test_an_unknown_config_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        TopicTable(MemoryFileSystem(), PATH).check_new("a", 1, {"segment.byte": "1"})
    assert caught.value.primary == "topic config segment.byte is not known"
    assert caught.value.hint == "did you mean segment.bytes?"


@pytest.mark.parametrize("value", ["none", "zip", "gzip,zstd", "GZIP", ""])
def test_a_compression_that_kafka_does_not_know_is_refused(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TopicTable(MemoryFileSystem(), PATH).check_new("a", 1, {"compression.type": value})
    assert caught.value.hint == "it takes producer, uncompressed, gzip, snappy, lz4 or zstd"


@pytest.mark.parametrize(
    ("name", "internal"),
    [("job-counts-changelog", True), ("job-by_word-repartition", True), ("orders", False)],
)
def test_topics_named_as_streamkit_names_its_own_are_internal(name: str, internal: bool) -> None:
    assert topic(name).describe().internal is internal


def test_a_damaged_list_of_topics_is_an_error_that_names_the_file() -> None:
    fs = MemoryFileSystem()
    TopicTable(fs, PATH).put(topic("a"))
    size_bytes = fs.open(PATH).size_bytes()
    for position in range(size_bytes):
        file = fs.open(PATH)
        byte = file.read_at(position, 1)[0]
        file.write_at(position, bytes([byte ^ 4]))
        with pytest.raises(CorruptBatchError) as caught:
            TopicTable(fs, PATH)
        assert caught.value.file == PATH
        file.write_at(position, bytes([byte]))
    assert TopicTable(fs, PATH).all() == [topic("a")]


def test_a_change_that_cannot_be_written_does_not_take_effect() -> None:
    refused: set[str] = set()

    def observe(change: str) -> None:
        if change in refused:
            raise OSError(28, "No space left on device")

    table = TopicTable(MemoryFileSystem(observe), PATH)
    table.put(topic("a"))
    refused.add("write")
    with pytest.raises(LogError, match="could not be written"):
        table.put(topic("b"))
    assert table.all() == [topic("a")]


def test_a_whole_file_is_the_old_one_or_the_new_one_after_a_crash() -> None:
    class PowerCut(Exception):
        pass

    for crash_at in range(1, 5):
        changes = 0

        def observe(change: str, crash_at: int = crash_at) -> None:
            nonlocal changes
            changes += 1
            if changes > 4 + crash_at - 1:
                raise PowerCut

        fs = MemoryFileSystem(observe)
        write_whole(fs, PATH, b"old")
        assert changes == 4
        with pytest.raises(PowerCut):
            write_whole(fs, PATH, b"new")
        for keep in (None, lambda path, extra_bytes: extra_bytes):
            assert read_whole(fs.crashed(keep), PATH) == b"old"


def test_a_missing_whole_file_is_none() -> None:
    assert read_whole(MemoryFileSystem(), PATH) is None
