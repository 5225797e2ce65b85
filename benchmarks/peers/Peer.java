import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/**
 * Runs a Kafka Streams topology until its aggregation has seen a number of rows, and prints one line of JSON.
 *
 * <p>The end is found by counting: what the aggregator was called with, plus what Kafka Streams says it dropped. The
 * clean close that follows commits, so it belongs to the run. Without `rows` it runs until SIGTERM.
 *
 * <p>Arguments are NAME=VALUE: job, bootstrap, id, input, output, state, guarantee, commit_ms; optional: rows, threads,
 * cache_bytes, linger_ms, grace_s, shuffle.
 */
public final class Peer {
  static final LongAdder SEEN = new LongAdder();
  private static final Duration CLOSE_LIMIT = Duration.ofSeconds(60);

  private final Map<String, String> arguments = new HashMap<>();

  private Peer(String[] given) {
    for (String argument : given) {
      String[] parts = argument.split("=", 2);
      arguments.put(parts[0], parts[1]);
    }
  }

  public static void main(String[] given) throws InterruptedException {
    new Peer(given).run();
  }

  String text(String name, String otherwise) {
    String found = arguments.getOrDefault(name, otherwise);
    if (found == null) {
      throw new IllegalArgumentException("missing argument " + name);
    }
    return found;
  }

  long number(String name, long otherwise) {
    return Long.parseLong(text(name, Long.toString(otherwise)));
  }

  private void run() throws InterruptedException {
    StreamsBuilder builder = new StreamsBuilder();
    switch (text("job", null)) {
      case "hot" -> HotAuctions.build(builder, this);
      case "words" -> WordCount.build(builder, this);
      case "running" -> RunningCount.build(builder, this);
      default -> throw new IllegalArgumentException("no such job");
    }
    try (KafkaStreams streams = new KafkaStreams(builder.build(), settings())) {
      streams.setUncaughtExceptionHandler(
          error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
          });
      long rows = number("rows", 0);
      if (rows == 0) {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(streams)));
        streams.start();
        Thread.currentThread().join();
      }
      streams.start();
      measure(streams, rows);
    }
  }

  /** Leaves the group: otherwise the next start waits until the group has given this member up. */
  private static void close(KafkaStreams streams) {
    streams.close(
        CloseOptions.groupMembershipOperation(GroupMembershipOperation.LEAVE_GROUP).withTimeout(CLOSE_LIMIT));
  }

  private void measure(KafkaStreams streams, long rows) throws InterruptedException {
    long halfRows = 0;
    long halfAt = 0;
    long done;
    while ((done = SEEN.sum() + (long) dropped(streams)) < rows) {
      if (halfAt == 0 && done >= rows / 2) {
        halfRows = done;
        halfAt = System.nanoTime();
      }
      Thread.sleep(5);
    }
    // Under 5 ms from one look to the next, nothing can be said of a second half.
    double seconds = (System.nanoTime() - halfAt) / 1e9;
    double steady = halfAt == 0 ? 0 : (done - halfRows) / seconds;
    double lost = dropped(streams);
    close(streams);
    System.out.printf(
        "{\"version\":\"%s\",\"rows\":%d,\"steady_rows_per_second\":%.0f,\"dropped\":%.0f}%n",
        AppInfoParser.getVersion(), done, steady, lost);
  }

  private static double dropped(KafkaStreams streams) {
    return streams.metrics().entrySet().stream()
        .filter(entry -> entry.getKey().name().equals("dropped-records-total"))
        .mapToDouble(entry -> (Double) entry.getValue().metricValue())
        .sum();
  }

  private Properties settings() {
    Properties settings = new Properties();
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, text("bootstrap", null));
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, text("id", null));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, text("state", null));
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, text("guarantee", null));
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, text("commit_ms", null));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, text("threads", "2"));
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, text("cache_bytes", "268435456"));
    settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), text("linger_ms", "100"));
    settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), "131072");
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), "5000");
    return settings;
  }
}
