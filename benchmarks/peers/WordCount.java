import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/** Counts words. What is sent through the shuffle is the key and an empty value. */
final class WordCount {
  private static final byte[] EMPTY = {};

  private WordCount() {}

  static void build(StreamsBuilder builder, Peer peer) {
    builder.stream(peer.text("input", null), Consumed.with(Serdes.Bytes(), Serdes.String()))
        .flatMap((key, line) -> words(line))
        .groupByKey(Grouped.with("by_word", Serdes.String(), Serdes.ByteArray()))
        .aggregate(
            () -> 0L,
            (word, ignored, total) -> {
              Peer.SEEN.increment();
              return total + 1;
            },
            Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.Long()))
        .toStream()
        .mapValues(count -> Long.toString(count))
        .to(peer.text("output", null), Produced.with(Serdes.String(), Serdes.String()));
  }

  private static List<KeyValue<String, byte[]>> words(String line) {
    List<KeyValue<String, byte[]>> pairs = new ArrayList<>();
    for (String word : line.toLowerCase(Locale.ROOT).split(" ")) {
      pairs.add(KeyValue.pair(word, EMPTY));
    }
    return pairs;
  }
}
