{{- /* What the chart sets itself, because its ports, probes and volumes rest on it. */ -}}
{{- define "cliptide.fixedSettings" -}}
CLIPTIDE_CONSUMER__HEALTH_HOST: "0.0.0.0"
CLIPTIDE_CONSUMER__HEALTH_PORT: "8081"
CLIPTIDE_QUERY_API__HOST: "0.0.0.0"
CLIPTIDE_QUERY_API__PORT: "8080"
CLIPTIDE_QUERY_API__METRICS_HOST: "0.0.0.0"
CLIPTIDE_QUERY_API__METRICS_PORT: "8082"
{{- end -}}

{{- define "cliptide.settings" -}}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ include "cliptide.text" $value | quote }}
{{- end }}
{{- end }}
{{ include "cliptide.fixedSettings" . }}
{{- end -}}
