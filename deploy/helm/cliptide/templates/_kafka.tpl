{{- /* The properties of librdkafka as JSON: those of the values win over ours. */ -}}
{{- define "cliptide.kafkaProperties" -}}
{{- $own := dict -}}
{{- if eq .component "consumer" -}}
{{- $own = dict "group.instance.id" "$(POD_NAME)" "session.timeout.ms" 45000 -}}
{{- end -}}
{{- if .root.Values.strimzi.enabled -}}
{{- $own = merge $own (dict
      "security.protocol" "SSL"
      "ssl.ca.location" "/etc/cliptide/kafka-ca/ca.crt"
      "ssl.certificate.location" "/etc/cliptide/kafka-user/user.crt"
      "ssl.key.location" "/etc/cliptide/kafka-user/user.key") -}}
{{- end -}}
{{- $all := merge (deepCopy .root.Values.kafkaProperties) $own -}}
{{- $parts := list -}}
{{- range $name := keys $all | sortAlpha -}}
{{- $value := get $all $name -}}
{{- if not (kindIs "string" $value) }}{{ $parts = append $parts (printf "%s: %s" (toJson $name) (include "cliptide.text" $value)) }}
{{- else }}{{ $parts = append $parts (printf "%s: %s" (toJson $name) (toJson $value)) }}{{ end -}}
{{- end -}}
{ {{- join ", " $parts -}} }
{{- end -}}

{{- define "cliptide.kafkaMounts" -}}
{{- if .Values.strimzi.enabled }}
- {name: kafka-ca, mountPath: /etc/cliptide/kafka-ca, readOnly: true}
- {name: kafka-user, mountPath: /etc/cliptide/kafka-user, readOnly: true}
{{- end }}
{{- end -}}

{{- define "cliptide.kafkaVolumes" -}}
{{- if .root.Values.strimzi.enabled }}
- name: kafka-ca
  secret: {secretName: {{ .root.Values.strimzi.caSecret }}, defaultMode: 0440}
- name: kafka-user
  secret: {secretName: {{ include "cliptide.name" .root }}-{{ .user }}, defaultMode: 0440}
{{- end }}
{{- end -}}
