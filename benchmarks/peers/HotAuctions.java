import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.WindowStore;

/**
 * How many bids and the best one, per auction, every ten seconds.
 *
 * <p>Only the three fields that count are parsed; between topics a bid is 24 bytes. Every update of a window goes out:
 * with emit on close the last windows would never come.
 */
final class HotAuctions {
  record Bid(long auction, long price, long timestamp) {}

  record Hot(long bids, long best) {}

  private static final Duration WINDOW = Duration.ofSeconds(10);
  private static final JsonFactory JSON = new JsonFactory();

  private HotAuctions() {}

  static void build(StreamsBuilder builder, Peer peer) {
    Serde<Bid> packed =
        Serdes.serdeFrom(
            (topic, bid) -> longs(bid.auction, bid.price, bid.timestamp),
            (topic, bytes) -> unpacked(ByteBuffer.wrap(bytes)));
    Serde<Bid> json = Serdes.serdeFrom((topic, bid) -> null, (topic, bytes) -> parsed(bytes));
    Deserializer<Long> digits =
        (topic, bytes) -> bytes == null ? null : Long.valueOf(new String(bytes, StandardCharsets.US_ASCII));
    Serde<Hot> hots =
        Serdes.serdeFrom((topic, hot) -> hot == null ? null : longs(hot.bids, hot.best), (topic, bytes) -> hot(bytes));
    KStream<Long, Bid> bids =
        builder.stream(
            peer.text("input", null),
            Consumed.with(Serdes.serdeFrom(Serdes.Long().serializer(), digits), json)
                .withTimestampExtractor((record, latest) -> ((Bid) record.value()).timestamp));
    if (Boolean.parseBoolean(peer.text("shuffle", "true"))) {
      bids = bids.selectKey((key, bid) -> bid.auction);
    }
    KGroupedStream<Long, Bid> byAuction = bids.groupByKey(Grouped.with("by_auction", Serdes.Long(), packed));
    byAuction
        .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, Duration.ofSeconds(peer.number("grace_s", 0))))
        .aggregate(
            () -> new Hot(0, 0),
            HotAuctions::add,
            Materialized.<Long, Hot, WindowStore<Bytes, byte[]>>as("hot")
                .withKeySerde(Serdes.Long())
                .withValueSerde(hots))
        .toStream()
        .map(HotAuctions::row)
        .to(peer.text("output", null), Produced.with(Serdes.String(), Serdes.String()));
  }

  private static Hot add(Long auction, Bid bid, Hot hot) {
    Peer.SEEN.increment();
    return new Hot(hot.bids + 1, Math.max(hot.best, bid.price));
  }

  private static KeyValue<String, String> row(Windowed<Long> key, Hot hot) {
    String value =
        "{\"window_start\":" + key.window().start() + ",\"window_end\":" + key.window().end()
            + ",\"bids\":" + hot.bids + ",\"best\":" + hot.best + "}";
    return KeyValue.pair(key.key().toString(), value);
  }

  private static Bid parsed(byte[] bytes) {
    long auction = 0;
    long price = 0;
    long timestamp = 0;
    try (JsonParser parser = JSON.createParser(bytes)) {
      parser.nextToken();
      while (parser.nextToken() == JsonToken.FIELD_NAME) {
        String name = parser.currentName();
        parser.nextToken();
        switch (name) {
          case "auction" -> auction = parser.getLongValue();
          case "price" -> price = parser.getLongValue();
          case "ts" -> timestamp = parser.getLongValue();
          default -> parser.skipChildren();
        }
      }
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    return new Bid(auction, price, timestamp);
  }

  private static Bid unpacked(ByteBuffer buffer) {
    return new Bid(buffer.getLong(), buffer.getLong(), buffer.getLong());
  }

  private static Hot hot(byte[] bytes) {
    if (bytes == null) {
      return null;
    }
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    return new Hot(buffer.getLong(), buffer.getLong());
  }

  private static byte[] longs(long... values) {
    ByteBuffer buffer = ByteBuffer.allocate(8 * values.length);
    for (long value : values) {
      buffer.putLong(value);
    }
    return buffer.array();
  }
}
