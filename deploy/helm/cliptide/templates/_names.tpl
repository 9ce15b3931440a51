{{- define "cliptide.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "cliptide.selector" -}}
app.kubernetes.io/name: cliptide
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cliptide.labels" -}}
{{ include "cliptide.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cliptide.group" -}}
{{- $index := get .Values.settings "CLIPTIDE_INDEX__ID" | default "main" | toString -}}
{{- get .Values.settings "CLIPTIDE_CONSUMER__GROUP_ID" | default (printf "cliptide-%s" $index) -}}
{{- end -}}

{{- /* A whole number of a values file is a float to Helm, which would print it as 1e+07. */ -}}
{{- define "cliptide.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}
{{- else if or (kindIs "map" .) (kindIs "slice" .) }}{{ toJson . }}
{{- else }}{{ toString . }}{{ end -}}
{{- end -}}

{{- define "cliptide.image" -}}
{{- $image := .image -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .appVersion }}{{ end -}}
{{- end -}}

{{- define "cliptide.indexClaim" -}}
{{- .Values.persistence.index.existingClaim | default (printf "%s-index" (include "cliptide.name" .)) -}}
{{- end -}}

{{- define "cliptide.weightsClaim" -}}
{{- .Values.persistence.weights.existingClaim | default (printf "%s-weights" (include "cliptide.name" .)) -}}
{{- end -}}

{{- define "cliptide.seconds" -}}
{{- get .settings .name | default .otherwise | toString | float64 -}}
{{- end -}}
