"""Apache Kafka behind the broker protocols, on aiokafka's client and wire."""

from streamkit.broker.kafka.broker import KafkaBroker
from streamkit.broker.kafka.settings import KafkaSettings

__all__ = ["KafkaBroker", "KafkaSettings"]
