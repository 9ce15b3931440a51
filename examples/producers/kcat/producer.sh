#!/bin/sh
# Publishes an upload, a reference and a delete: producer.sh BROKER TOPIC
set -eu
[ $# -eq 2 ] || { echo 'usage: producer.sh BROKER TOPIC' >&2; exit 1; }
broker=$1 topic=$2
publish() {
    kcat -P -b "$broker" -t "$topic" -k "$1" -H content-type=application/json -X partitioner=murmur2_random
}
printf '%s' '{"content_id":"shoe-1","occurred_at":1772368215250,"source":"shop","content":{"text":"a red shoe"}}' |
    publish shoe-1
printf '%s' '{"content_id":"shoe-2","occurred_at":1772368215250,"source":"shop","content":{"reference":{"uri":"s3://uploads/shoe-2.jpg","modality":"image"}}}' |
    publish shoe-2
printf '%s' '{"content_id":"shoe-3","occurred_at":1772368215250,"source":"shop","operation":"delete"}' |
    publish shoe-3
