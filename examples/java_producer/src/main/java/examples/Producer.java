package examples;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes one upload, or one delete, to cliptide's topic. */
public final class Producer {
    private static final String TOPIC = "content-uploads";
    private static final int MAX_RECORD_BYTES = 11 << 20; // the topic's max.message.bytes in the demo
    private static final int DEADLINE_MS = 30_000;

    private Producer() {}

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length != 3) {
            System.err.println("usage: producer.jar BOOTSTRAP_SERVERS CONTENT_ID (TEXT | @PICTURE | -)");
            System.exit(2);
        }
        try {
            byte[] event = arguments[2].equals("-") ? null : upload(arguments[1], arguments[2]);
            publish(arguments[0], new ProducerRecord<>(TOPIC, arguments[1], event));
        } catch (IOException error) {
            System.err.println(arguments[2].substring(1) + " cannot be read: " + error.getClass().getSimpleName());
            System.exit(1);
        }
    }

    private static void publish(String brokers, ProducerRecord<String, byte[]> record)
            throws InterruptedException {
        record.headers().add("content-type", "application/json".getBytes());
        try (KafkaProducer<String, byte[]> producer = new KafkaProducer<>(settings(brokers))) {
            RecordMetadata done = producer.send(record).get(); // waits for the acknowledgement
            System.out.printf(
                    "{\"min_offsets\": {\"%s-%d\": %d}}%n", TOPIC, done.partition(), done.offset() + 1);
        } catch (ExecutionException error) {
            System.err.println(error.getCause().getMessage());
            System.exit(1);
        }
    }

    /** Builds the event. Jackson writes a byte array in base64, as the contract asks. */
    private static byte[] upload(String contentId, String what) throws IOException {
        Object content = what.startsWith("@")
                ? Map.of("image", Files.readAllBytes(Path.of(what.substring(1))))
                : Map.of("text", what);
        return json(Map.of(
                "content_id", contentId,
                "occurred_at", Instant.now().toEpochMilli(),
                "source", "java",
                "content", content,
                "metadata", Map.of("producer", "java")));
    }

    private static byte[] json(Map<String, Object> event) throws JsonProcessingException {
        return new ObjectMapper().writeValueAsBytes(event);
    }

    private static Properties settings(String brokers) {
        Properties settings = new Properties();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, List.of(brokers.split(",")));
        settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        settings.put(ProducerConfig.MAX_REQUEST_SIZE_CONFIG, MAX_RECORD_BYTES);
        settings.put(ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, DEADLINE_MS / 2);
        settings.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, DEADLINE_MS);
        settings.put(ProducerConfig.MAX_BLOCK_MS_CONFIG, DEADLINE_MS);
        return settings;
    }
}
