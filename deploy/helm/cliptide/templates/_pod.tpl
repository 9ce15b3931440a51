{{- define "cliptide.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "cliptide.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "cliptide.podPlace" -}}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .part.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .part.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "cliptide.podAnnotations" -}}
checksum/settings: {{ include "cliptide.settings" .root | sha256sum }}  # a changed setting replaces the pods
{{- with .part.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cliptide.mounts" -}}
{{- if .root.Values.persistence.index.enabled }}
- {name: index, mountPath: /var/lib/cliptide/index{{ if .readOnly }}, readOnly: true{{ end }}}
{{- end }}
- {name: weights, mountPath: /var/lib/cliptide/weights}
- {name: scratch, mountPath: /tmp}
{{- include "cliptide.kafkaMounts" .root }}
{{- end -}}

{{- define "cliptide.volumes" -}}
{{- if .root.Values.persistence.index.enabled }}
- {name: index, persistentVolumeClaim: {claimName: {{ include "cliptide.indexClaim" .root }}}}
{{- end }}
- {name: weights, persistentVolumeClaim: {claimName: {{ include "cliptide.weightsClaim" .root }}}}
- {name: scratch, emptyDir: {sizeLimit: 1Gi}}
{{- include "cliptide.kafkaVolumes" . }}
{{- end -}}
