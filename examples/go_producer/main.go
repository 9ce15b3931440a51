// Publish one upload, or one delete, to cliptide's topic.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic          = "content-uploads"
	maxRecordBytes = 11 << 20 // the topic's max.message.bytes in the demo and in the compose file
	deadline       = 30 * time.Second
)

// content is a text, or the bytes of a picture file, which JSON carries in base64.
type content struct {
	Text  string `json:"text,omitempty"`
	Image []byte `json:"image,omitempty"`
}

type upload struct {
	ContentID  string            `json:"content_id"`
	OccurredAt string            `json:"occurred_at"`
	Source     string            `json:"source"`
	Content    content           `json:"content"`
	Metadata   map[string]string `json:"metadata"`
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf(`usage: go run . BOOTSTRAP_SERVERS CONTENT_ID (TEXT | @PICTURE | -)`))
	}
	record, err := buildRecord(os.Args[2], os.Args[3])
	if err != nil {
		fail(err)
	}
	if err := publish(strings.Split(os.Args[1], ","), record); err != nil {
		fail(err)
	}
	fmt.Printf(`{"min_offsets": {"%s-%d": %d}}`+"\n", topic, record.Partition, record.Offset+1)
}

// buildRecord returns the record of an upload, or of a delete, whose value is null.
func buildRecord(contentID, what string) (*kgo.Record, error) {
	record := &kgo.Record{
		Topic:   topic,
		Key:     []byte(contentID),
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}},
	}
	if what == "-" {
		return record, nil
	}
	body, err := readContent(what)
	if err != nil {
		return nil, err
	}
	record.Value, err = json.Marshal(upload{
		ContentID:  contentID,
		OccurredAt: time.Now().UTC().Format(time.RFC3339Nano),
		Source:     "go",
		Content:    body,
		Metadata:   map[string]string{"producer": "go"},
	})
	return record, err
}

func readContent(what string) (content, error) {
	if !strings.HasPrefix(what, "@") {
		return content{Text: what}, nil
	}
	data, err := os.ReadFile(what[1:])
	return content{Image: data}, err
}

// publish sends the record and waits until every in-sync replica has it.
func publish(brokers []string, record *kgo.Record) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ProducerBatchMaxBytes(maxRecordBytes),
		kgo.RecordDeliveryTimeout(deadline),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return client.ProduceSync(ctx, record).FirstErr()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
