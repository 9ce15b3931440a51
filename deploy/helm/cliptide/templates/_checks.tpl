{{- /* What the schema of the values cannot say. Each refusal is a sentence that names the values. */ -}}
{{- define "cliptide.check" -}}
{{- $values := .Values -}}
{{- range $name := keys (fromYaml (include "cliptide.fixedSettings" .)) | sortAlpha -}}
{{- if hasKey $values.settings $name -}}
{{- fail (printf "settings.%s cannot be set: the chart sets it, because its ports and probes rest on it." $name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $values.settings "CLIPTIDE_KAFKA__PROPERTIES" -}}
{{- fail "settings.CLIPTIDE_KAFKA__PROPERTIES cannot be set: give the properties as kafkaProperties." -}}
{{- end -}}
{{- $root := get $values.settings "CLIPTIDE_INDEX__ROOT" | default "" -}}
{{- $isInBucket := regexMatch "^(s3|gs|az)://" $root -}}
{{- if and $isInBucket $values.persistence.index.enabled -}}
{{- fail (printf "The index lies in %s, so no volume is needed for it: set persistence.index.enabled to false." $root) -}}
{{- end -}}
{{- if and (not $isInBucket) (not $values.persistence.index.enabled) -}}
{{- fail (printf "settings.CLIPTIDE_INDEX__ROOT is %q, which needs the volume: set persistence.index.enabled to true, or name a bucket." $root) -}}
{{- end -}}
{{- if and (not $isInBucket) (ne $root "/var/lib/cliptide/index") -}}
{{- fail (printf "settings.CLIPTIDE_INDEX__ROOT is %q, but the volume of the index is mounted at /var/lib/cliptide/index." $root) -}}
{{- end -}}
{{- if $values.keda.enabled -}}
{{- if and (not $values.strimzi.enabled) (not $values.keda.maxReplicas) -}}
{{- fail "keda.maxReplicas must be the number of the topic's partitions: further consumers would only stand by." -}}
{{- end -}}
{{- if and $values.strimzi.enabled $values.keda.maxReplicas -}}
{{- if gt (int64 $values.keda.maxReplicas) (int64 $values.strimzi.partitions) -}}
{{- fail (printf "keda.maxReplicas is %d, but the topic has %d partitions: further consumers would only stand by." (int64 $values.keda.maxReplicas) (int64 $values.strimzi.partitions)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.strimzi.enabled (ge (int64 $values.strimzi.minInsyncReplicas) (int64 $values.strimzi.replicas)) -}}
{{- fail "strimzi.minInsyncReplicas must be less than strimzi.replicas: otherwise no upload can be published while one broker restarts." -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.host) -}}
{{- fail "ingress.host must name the host under which the query service is reached." -}}
{{- end -}}
{{- end -}}
