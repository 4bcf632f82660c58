{{- define "imgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "imgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "imgate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "imgate.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "imgate.selector" -}}
app.kubernetes.io/name: {{ include "imgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "imgate.labels" -}}
{{ include "imgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "imgate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "imgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "imgate.secret" -}}
{{- if .Values.secrets.existingSecret -}}
{{- .Values.secrets.existingSecret -}}
{{- else if .Values.secrets.data -}}
{{- include "imgate.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "imgate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Values that do not go together; the schema cannot say these. */}}
{{- define "imgate.check" -}}
{{- if and (gt (int .Values.replicas) 1) (ne .Values.store.kind "redis") -}}
{{- fail "replicas: more than 1 needs store.kind: redis" -}}
{{- end -}}
{{- $stop := .Values.shutdown -}}
{{- $least := add (int $stop.preStopSleepSeconds) (int $stop.graceSeconds) 5 -}}
{{- if lt (int $stop.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds: must be at least %d, which is preStopSleepSeconds + graceSeconds + 5" $least) -}}
{{- end -}}
{{- if and (eq .Values.store.kind "redis") (not .Values.seal.keys) -}}
{{- fail "seal.keys: required for store.kind: redis" -}}
{{- end -}}
{{- if and .Values.seal.keys (not (hasKey .Values.seal.keys .Values.seal.active)) -}}
{{- fail "seal.active: must be one of seal.keys" -}}
{{- end -}}
{{- if and (or .Values.seal.keys (eq .Values.store.kind "redis")) (not (include "imgate.secret" .)) -}}
{{- fail "secrets: seal.keys and store.kind: redis need secrets.existingSecret or secrets.data" -}}
{{- end -}}
{{- if and .Values.grpc.tls.requireClientCertificate (not .Values.grpc.tls.secretName) -}}
{{- fail "grpc.tls.requireClientCertificate: needs grpc.tls.secretName" -}}
{{- end -}}
{{- if eq (int .Values.grpc.port) (int .Values.ops.port) -}}
{{- fail "ops.port: must not be grpc.port" -}}
{{- end -}}
{{- end -}}
