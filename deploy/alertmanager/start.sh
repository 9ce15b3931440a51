#!/bin/sh
# Write the address of the webhook into the configuration, and start Alertmanager with it.
set -eu
address=$(printf %s "${CLIPTIDE_ALERT_WEBHOOK:-http://webhook.invalid/}" | sed 's/[&|\\]/\\&/g')
folder=$(dirname "$0")
written="${WRITTEN:-/tmp/alertmanager.yml}"
sed "s|http://webhook.invalid/|${address}|" "$folder/alertmanager.yml" > "$written"
exec "${ALERTMANAGER:-/bin/alertmanager}" --config.file="$written" --cluster.listen-address= "$@"
