// Writes the golden records written-by-go (with the schema as it was, whose occurred_at had the logical type
// timestamp-millis) and, with its plain long and int64(1767323045000), written-by-go-of-plain-long.
// go mod init golden && go get github.com/hamba/avro/v2@v2.31.0 && go run .
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/soe"
)

func main() {
	text, err := os.ReadFile("upload_event.avsc")
	check(err)
	schema, err := avro.Parse(string(text))
	check(err)
	codec, err := soe.NewCodec(schema)
	check(err)
	value, err := codec.Encode(map[string]any{
		"content_id":  "go-1",
		"occurred_at": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"operation":   "upsert",
		"version":     map[string]any{"long": int64(7)},
		"content":     map[string]any{"cliptide.TextContent": map[string]any{"text": "a red shoe"}},
		"event_id":    "e-1",
		"source":      "shop",
		"owner_id":    nil,
		"link":        map[string]any{"string": "https://shop.example/1"},
		"metadata":    map[string]any{"price": map[string]any{"double": 4.5}},
	})
	check(err)
	fmt.Printf("%x\n", value)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
