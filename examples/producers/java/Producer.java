// Publishes an upload, a reference and a delete: java -cp 'target/*' Producer.java BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]
// mvn dependency:copy-dependencies -DoutputDirectory=target brings what it needs.
import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Producer {
    private static final long OCCURRED_AT = 1772368215250L; // milliseconds

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 4) {
            System.err.println("usage: java Producer.java BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]");
            System.exit(1);
        }
        String topic = arguments[1], format = arguments[2];
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "key.serializer", ByteArraySerializer.class,
            "value.serializer", ByteArraySerializer.class);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            if (format.equals("json")) {
                publishJson(producer, topic);
            } else {
                String text = Files.readString(Path.of(arguments[3]));
                Schema schema = new Schema.Parser().parse(text);
                int id = format.equals("registry") ? register(arguments[4], topic, text) : -1;
                for (GenericRecord event : events(schema)) {
                    byte[] value = id < 0 ? singleObject(schema, event) : framed(id, schema, event);
                    send(producer, topic, event.get("content_id").toString(), value, false);
                }
            }
        }
    }

    private static List<GenericRecord> events(Schema schema) {
        List<Schema> contents = schema.getField("content").schema().getTypes();
        Schema text = contents.get(1), reference = contents.get(4);
        Schema modality = reference.getField("modality").schema();
        Schema operation = schema.getField("operation").schema();
        GenericRecord shoe = new GenericRecordBuilder(reference)
            .set("uri", "s3://uploads/shoe-2.jpg")
            .set("modality", new GenericData.EnumSymbol(modality, "image"))
            .build();
        return List.of(
            event(schema, "shoe-1").set("content", new GenericRecordBuilder(text).set("text", "a red shoe").build()).build(),
            event(schema, "shoe-2").set("content", shoe).build(),
            event(schema, "shoe-3").set("operation", new GenericData.EnumSymbol(operation, "delete")).build());
    }

    private static GenericRecordBuilder event(Schema schema, String contentId) {
        return new GenericRecordBuilder(schema)
            .set("content_id", contentId)
            .set("occurred_at", OCCURRED_AT)
            .set("source", "shop");
    }

    private static byte[] singleObject(Schema schema, GenericRecord event) throws IOException {
        ByteBuffer value = new BinaryMessageEncoder<GenericRecord>(new GenericData(), schema).encode(event);
        byte[] bytes = new byte[value.remaining()];
        value.get(bytes);
        return bytes;
    }

    private static byte[] framed(int id, Schema schema, GenericRecord event) throws IOException {
        ByteArrayOutputStream value = new ByteArrayOutputStream();
        value.write(ByteBuffer.allocate(5).put((byte) 0).putInt(id).array());
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(value, null);
        new GenericDatumWriter<GenericRecord>(schema).write(event, encoder);
        encoder.flush();
        return value.toByteArray();
    }

    private static int register(String registry, String topic, String text) throws Exception {
        String quoted = text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n");
        HttpRequest request = HttpRequest.newBuilder(URI.create(registry + "/subjects/" + topic + "-value/versions"))
            .header("Content-Type", "application/vnd.schemaregistry.v1+json")
            .POST(HttpRequest.BodyPublishers.ofString("{\"schema\": \"" + quoted + "\"}"))
            .build();
        String answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
        Matcher id = Pattern.compile("\"id\"\\s*:\\s*(\\d+)").matcher(answer);
        if (!id.find()) throw new IOException("the registry answers " + answer);
        return Integer.parseInt(id.group(1));
    }

    private static void publishJson(KafkaProducer<byte[], byte[]> producer, String topic) throws Exception {
        String common = "\"occurred_at\": " + OCCURRED_AT + ", \"source\": \"shop\"";
        Map<String, String> rest = Map.of(
            "shoe-1", "\"content\": {\"text\": \"a red shoe\"}",
            "shoe-2", "\"content\": {\"reference\": {\"uri\": \"s3://uploads/shoe-2.jpg\", \"modality\": \"image\"}}",
            "shoe-3", "\"operation\": \"delete\"");
        for (String id : List.of("shoe-1", "shoe-2", "shoe-3")) {
            String event = "{\"content_id\": \"" + id + "\", " + common + ", " + rest.get(id) + "}";
            send(producer, topic, id, event.getBytes(UTF_8), true);
        }
    }

    private static void send(
            KafkaProducer<byte[], byte[]> producer, String topic, String key, byte[] value, boolean isJson) throws Exception {
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, key.getBytes(UTF_8), value);
        if (isJson) record.headers().add("content-type", "application/json".getBytes(UTF_8));
        producer.send(record).get();
    }
}
