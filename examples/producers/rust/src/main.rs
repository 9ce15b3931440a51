//! Publishes an upload, a reference and a delete:
//! cargo run -- BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]

use std::collections::BTreeMap;

use apache_avro::types::Value;
use apache_avro::{to_avro_datum, Schema};
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::client::ClientBuilder;
use rskafka::record::Record;
use serde_json::json;

const OCCURRED_AT: i64 = 1772368215250; // milliseconds
/// The marker of single-object encoding and the fingerprint of upload_event.avsc.
const HEADER: [u8; 10] = [0xC3, 0x01, 0x23, 0xD3, 0x4F, 0xC1, 0xB3, 0xE2, 0xBE, 0x17];

type Error = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() < 5 {
        return Err("usage: cargo run -- BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]".into());
    }
    let (broker, topic, format) = (&arguments[1], &arguments[2], &arguments[3]);
    let events = match format.as_str() {
        "json" => events_in_json(),
        _ => {
            let text = std::fs::read_to_string(&arguments[4])?;
            let prefix = match format.as_str() {
                "avro" => HEADER.to_vec(),
                _ => register(&arguments[5], topic, &text)?,
            };
            events_in_avro(&Schema::parse_str(&text)?, &prefix)?
        }
    };
    let client = ClientBuilder::new(vec![broker.clone()]).build().await?;
    let topics = client.list_topics().await?;
    let partitions = topics.iter().find(|one| one.name == *topic).ok_or("no such topic")?.partitions.len();
    for (content_id, value) in events {
        let partition = (murmur2(content_id.as_bytes()) & 0x7fff_ffff) as usize % partitions;
        let headers = match format.as_str() {
            "json" => BTreeMap::from([("content-type".to_owned(), b"application/json".to_vec())]),
            _ => BTreeMap::new(),
        };
        let record = Record {
            key: Some(content_id.as_bytes().to_vec()),
            value: Some(value),
            headers,
            timestamp: chrono::Utc::now(),
        };
        client // waits for all in-sync replicas
            .partition_client(topic, partition as i32, UnknownTopicHandling::Error)
            .await?
            .produce(vec![record], Compression::NoCompression)
            .await?;
    }
    Ok(())
}

fn events_in_json() -> Vec<(&'static str, Vec<u8>)> {
    let reference = json!({"uri": "s3://uploads/shoe-2.jpg", "modality": "image"});
    [
        ("shoe-1", json!({"content": {"text": "a red shoe"}})),
        ("shoe-2", json!({"content": {"reference": reference}})),
        ("shoe-3", json!({"operation": "delete"})),
    ]
    .map(|(content_id, mut event)| {
        event["content_id"] = json!(content_id);
        event["occurred_at"] = json!(OCCURRED_AT);
        event["source"] = json!("shop");
        (content_id, event.to_string().into_bytes())
    })
    .into()
}

fn events_in_avro(schema: &Schema, prefix: &[u8]) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let shoe = Value::Record(vec![("text".into(), text("a red shoe"))]);
    let picture = Value::Record(vec![
        ("uri".into(), text("s3://uploads/shoe-2.jpg")),
        ("sha256".into(), nothing()),
        ("size_bytes".into(), nothing()),
        ("etag".into(), nothing()),
        ("modality".into(), Value::Enum(1, "image".into())),
    ]);
    let mut values = Vec::new();
    for (content_id, operation, content) in [
        ("shoe-1", Value::Enum(0, "upsert".into()), Value::Union(1, Box::new(shoe))),
        ("shoe-2", Value::Enum(0, "upsert".into()), Value::Union(4, Box::new(picture))),
        ("shoe-3", Value::Enum(1, "delete".into()), nothing()),
    ] {
        let event = Value::Record(vec![
            ("content_id".into(), text(content_id)),
            ("occurred_at".into(), Value::Long(OCCURRED_AT)),
            ("operation".into(), operation),
            ("version".into(), nothing()),
            ("content".into(), content),
            ("event_id".into(), text("")),
            ("source".into(), text("shop")),
            ("owner_id".into(), nothing()),
            ("link".into(), nothing()),
            ("metadata".into(), Value::Map(Default::default())),
            ("title".into(), nothing()),
            ("remove".into(), Value::Array(Vec::new())),
        ]);
        values.push((content_id, [prefix, &to_avro_datum(schema, event)?].concat()));
    }
    Ok(values)
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn nothing() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

/// Registers the schema, and returns 0 and its id: four bytes, big-endian.
fn register(registry: &str, topic: &str, text: &str) -> Result<Vec<u8>, Error> {
    let answer: serde_json::Value = ureq::post(&format!("{registry}/subjects/{topic}-value/versions"))
        .set("Content-Type", "application/vnd.schemaregistry.v1+json")
        .send_string(&json!({"schema": text}).to_string())?
        .into_json()?;
    let id = answer["id"].as_u64().ok_or("the registry answers without an id")?;
    Ok([&[0], &(id as u32).to_be_bytes()[..]].concat())
}

/// The hash by which Java's client chooses a partition. rskafka leaves the choice to its caller.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    for (number, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * number);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}
