import java.util.Collection;
import java.util.Properties;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Metric;
import org.apache.flink.metrics.MetricConfig;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.metrics.reporter.MetricReporter;
import org.apache.flink.metrics.reporter.MetricReporterFactory;

/**
 * Finds, among the metrics of the mini cluster, how many rows reached the aggregation and what it dropped as late.
 *
 * <p>Rows are counted before they are summed up ahead of the shuffle, late ones as such sums: of how many rows each,
 * nobody knows.
 */
public final class RowCounters implements MetricReporterFactory, MetricReporter {
  private static final Collection<Counter> SEEN = new ConcurrentLinkedQueue<>();
  private static final Collection<Counter> LATE = new ConcurrentLinkedQueue<>();

  static long seen() {
    return SEEN.stream().mapToLong(Counter::getCount).sum();
  }

  static long late() {
    return LATE.stream().mapToLong(Counter::getCount).sum();
  }

  @Override
  public MetricReporter createMetricReporter(Properties settings) {
    return this;
  }

  @Override
  public void open(MetricConfig settings) {}

  @Override
  public void close() {}

  @Override
  public void notifyOfAddedMetric(Metric metric, String name, MetricGroup group) {
    String operator = group.getAllVariables().getOrDefault("<operator_name>", "");
    if (name.equals("numRecordsIn") && operator.startsWith("LocalWindowAggregate")) {
      SEEN.add((Counter) metric);
    } else if (name.equals("numLateRecordsDropped")) {
      LATE.add((Counter) metric);
    }
  }

  @Override
  public void notifyOfRemovedMetric(Metric metric, String name, MetricGroup group) {
    // A task that has ended has still counted.
  }
}
