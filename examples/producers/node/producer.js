// Publishes an upload, a reference and a delete: node producer.js BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]
const fs = require("node:fs");
const avro = require("avsc");
const { Kafka, Partitioners, logLevel } = require("kafkajs");

const [broker, topic, format, schemaFile, registry] = process.argv.slice(2);
const occurredAt = 1772368215250; // milliseconds
// The marker of single-object encoding and the fingerprint of upload_event.avsc
const header = Buffer.from("c30123d34fc1b3e2be17", "hex");

const inJson = [
  { content_id: "shoe-1", occurred_at: occurredAt, source: "shop", content: { text: "a red shoe" } },
  {
    content_id: "shoe-2", occurred_at: occurredAt, source: "shop",
    content: { reference: { uri: "s3://uploads/shoe-2.jpg", modality: "image" } },
  },
  { content_id: "shoe-3", occurred_at: occurredAt, source: "shop", operation: "delete" },
];

const inAvro = [
  { ...inJson[0], content: { "cliptide.TextContent": { text: "a red shoe" } } },
  { ...inJson[1], content: { "cliptide.Reference": inJson[1].content.reference } },
  inJson[2],
];

async function register(text) {
  const response = await fetch(`${registry}/subjects/${topic}-value/versions`, {
    method: "POST",
    headers: { "Content-Type": "application/vnd.schemaregistry.v1+json" },
    body: JSON.stringify({ schema: text }),
  });
  if (!response.ok) throw new Error(`the registry answers ${response.status}: ${await response.text()}`);
  const prefix = Buffer.alloc(5); // 0, and the schema's id
  prefix.writeUInt32BE((await response.json()).id, 1);
  return prefix;
}

async function messages() {
  if (format === "json") {
    const headers = { "content-type": "application/json" };
    return inJson.map((event) => ({ key: event.content_id, value: JSON.stringify(event), headers }));
  }
  const text = fs.readFileSync(schemaFile, "utf8");
  const type = avro.Type.forSchema(JSON.parse(text));
  const prefix = format === "avro" ? header : await register(text);
  return inAvro.map((event) => ({
    key: event.content_id,
    value: Buffer.concat([prefix, type.toBuffer(event)]),
  }));
}

async function main() {
  const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.ERROR });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  await producer.send({ topic, acks: -1, messages: await messages() });
  await producer.disconnect();
}

if (process.argv.length < 6) {
  console.error("usage: node producer.js BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]");
  process.exit(1);
}
main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
