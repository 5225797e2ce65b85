import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.api.common.JobExecutionResult;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.util.EnvironmentInformation;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/**
 * How many bids and the best one, per auction, every ten seconds, in Flink SQL on a mini cluster in this process.
 *
 * <p>The input ends at the offsets that are the latest at the start, so a partition without data, or read to its end,
 * is over and holds no watermark back. An idle timeout would add nothing, and on a busy machine make records late.
 * There are no checkpoints: at-least-once rests on the flush at the end.
 *
 * <p>Arguments are NAME=VALUE: bootstrap, id, input, output, rows; any other is not looked at. Prints one line of JSON;
 * fails when anything was dropped as late.
 */
public final class FlinkHotAuctions {
  private static final String INPUT =
      """
      CREATE TABLE bids (
        auction BIGINT, price BIGINT, ts BIGINT, bid_time AS TO_TIMESTAMP_LTZ(ts, 3),
        WATERMARK FOR bid_time AS bid_time - INTERVAL '0.001' SECOND
      ) WITH (
        'connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s', 'properties.group.id' = '%s',
        'properties.max.poll.records' = '5000', 'scan.startup.mode' = 'earliest-offset',
        'scan.bounded.mode' = 'latest-offset', 'format' = 'json'
      )""";
  private static final String OUTPUT =
      """
      CREATE TABLE hot (
        auction STRING, window_start TIMESTAMP_LTZ(3), window_end TIMESTAMP_LTZ(3), bids BIGINT, best BIGINT
      ) WITH (
        'connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s', 'properties.linger.ms' = '100',
        'properties.batch.size' = '131072', 'sink.delivery-guarantee' = 'at-least-once', 'key.format' = 'raw',
        'key.fields' = 'auction', 'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY'
      )""";
  private static final String QUERY =
      """
      INSERT INTO hot
      SELECT CAST(auction AS STRING), window_start, window_end, COUNT(*), MAX(price)
      FROM TUMBLE(TABLE bids, DESCRIPTOR(bid_time), INTERVAL '10' SECOND)
      GROUP BY auction, window_start, window_end""";

  private FlinkHotAuctions() {}

  public static void main(String[] given) throws Exception {
    Map<String, String> arguments = new HashMap<>();
    for (String argument : given) {
      String[] parts = argument.split("=", 2);
      arguments.put(parts[0], parts[1]);
    }
    String bootstrap = arguments.get("bootstrap");
    TableEnvironment tables =
        TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings()).build());
    tables.executeSql(INPUT.formatted(arguments.get("input"), bootstrap, arguments.get("id")));
    tables.executeSql(OUTPUT.formatted(arguments.get("output"), bootstrap));
    measure(
        tables.executeSql(QUERY).getJobClient().orElseThrow().getJobExecutionResult(),
        Long.parseLong(arguments.get("rows")));
  }

  private static Configuration settings() {
    Configuration settings = new Configuration();
    settings.setString("parallelism.default", "2");
    settings.setString("pipeline.object-reuse", "true");
    settings.setString("metrics.reporters", "rows");
    settings.setString("metrics.reporter.rows.factory.class", RowCounters.class.getName());
    return settings;
  }

  private static void measure(CompletableFuture<JobExecutionResult> end, long rows) throws Exception {
    long halfRows = 0;
    long halfAt = 0;
    long done;
    while ((done = RowCounters.seen()) < rows && !end.isDone()) {
      if (halfAt == 0 && done >= rows / 2) {
        halfRows = done;
        halfAt = System.nanoTime();
      }
      Thread.sleep(5);
    }
    // Under 5 ms from one look to the next, nothing can be said of a second half.
    double seconds = (System.nanoTime() - halfAt) / 1e9;
    double steady = halfAt == 0 ? 0 : (done - halfRows) / seconds;
    end.get();
    if (RowCounters.seen() != rows || RowCounters.late() > 0) {
      throw new IllegalStateException(
          "the aggregation saw " + RowCounters.seen() + " rows of " + rows + ", late sums: " + RowCounters.late());
    }
    System.out.printf(
        "{\"version\":\"%s\",\"rows\":%d,\"steady_rows_per_second\":%.0f,\"dropped\":0}%n",
        EnvironmentInformation.getVersion(), rows, steady);
  }
}
