// Publishes an upload, a reference and a delete: go run . BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The marker of single-object encoding and the fingerprint of upload_event.avsc.
var header = []byte{0xC3, 0x01, 0x23, 0xD3, 0x4F, 0xC1, 0xB3, 0xE2, 0xBE, 0x17}

const occurredAt = int64(1772368215250) // milliseconds

type fields = map[string]any

var reference = fields{"uri": "s3://uploads/shoe-2.jpg", "modality": "image"}

var inJSON = []fields{
	{"content_id": "shoe-1", "occurred_at": occurredAt, "source": "shop", "content": fields{"text": "a red shoe"}},
	{"content_id": "shoe-2", "occurred_at": occurredAt, "source": "shop", "content": fields{"reference": reference}},
	{"content_id": "shoe-3", "occurred_at": occurredAt, "source": "shop", "operation": "delete"},
}

var inAvro = []fields{
	{"content_id": "shoe-1", "occurred_at": occurredAt, "source": "shop",
		"content": fields{"cliptide.TextContent": fields{"text": "a red shoe"}}},
	{"content_id": "shoe-2", "occurred_at": occurredAt, "source": "shop",
		"content": fields{"cliptide.Reference": reference}},
	{"content_id": "shoe-3", "occurred_at": occurredAt, "source": "shop", "operation": "delete"},
}

func main() {
	if len(os.Args) < 5 {
		log.Fatal("usage: go run . BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]")
	}
	broker, topic, format := os.Args[1], os.Args[2], os.Args[3]
	client, err := kgo.NewClient(kgo.SeedBrokers(broker)) // murmur2 and acks=all by default
	check(err)
	defer client.Close()
	var records []*kgo.Record
	if format == "json" {
		for _, event := range inJSON {
			value, err := json.Marshal(event)
			check(err)
			records = append(records, record(topic, event, value))
			records[len(records)-1].Headers = []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}}
		}
	} else {
		text, err := os.ReadFile(os.Args[4])
		check(err)
		schema, err := avro.Parse(string(text))
		check(err)
		prefix := header
		if format == "registry" {
			prefix = register(os.Args[5], topic, string(text))
		}
		for _, event := range inAvro {
			datum, err := avro.Marshal(schema, event)
			check(err)
			records = append(records, record(topic, event, append(append([]byte{}, prefix...), datum...)))
		}
	}
	check(client.ProduceSync(context.Background(), records...).FirstErr())
}

func record(topic string, event fields, value []byte) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: []byte(event["content_id"].(string)), Value: value}
}

// register returns 0 and the schema's id: four bytes, big-endian.
func register(registry, topic, text string) []byte {
	body, err := json.Marshal(map[string]string{"schema": text})
	check(err)
	address := fmt.Sprintf("%s/subjects/%s-value/versions", registry, topic)
	response, err := http.Post(address, "application/vnd.schemaregistry.v1+json", bytes.NewReader(body))
	check(err)
	defer response.Body.Close()
	var answer struct{ ID uint32 }
	check(json.NewDecoder(response.Body).Decode(&answer))
	return binary.BigEndian.AppendUint32([]byte{0}, answer.ID)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
