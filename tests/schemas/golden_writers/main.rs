// Writes the golden record written-by-rust, with the schema as it was, whose occurred_at had the logical type
// timestamp-millis. Cargo.toml: apache-avro = "0.17".
use apache_avro::rabin::Rabin;
use apache_avro::types::Value;
use apache_avro::{to_avro_datum, Schema};

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn nothing() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

fn main() {
    let schema = Schema::parse_str(&std::fs::read_to_string("upload_event.avsc").unwrap()).unwrap();
    let content = Value::Record(vec![("text".into(), text("a red shoe"))]);
    let price = Value::Union(1, Box::new(Value::Double(4.5)));
    let event = Value::Record(vec![
        ("content_id".into(), text("rs-1")),
        ("occurred_at".into(), Value::TimestampMillis(1_795_877_780_363)),
        ("operation".into(), Value::Enum(0, "upsert".into())),
        ("version".into(), nothing()),
        ("content".into(), Value::Union(1, Box::new(content))),
        ("event_id".into(), text("")),
        ("source".into(), text("rust")),
        ("owner_id".into(), nothing()),
        ("link".into(), nothing()),
        ("metadata".into(), Value::Map([("price".to_string(), price)].into())),
    ]);
    let mut value = vec![0xC3, 0x01];
    value.extend(schema.fingerprint::<Rabin>().bytes);
    value.extend(to_avro_datum(&schema, event).unwrap());
    println!("{}", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}
