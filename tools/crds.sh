#!/bin/sh
# Generates the CRDs of all Flux kinds into the folder $1 (default: where the
# operator embeds them), from the API modules that go.mod names. A duration or a time
# that Go cannot read, such as 99999999999999999m or 2026-01-31t00:00:00z, is refused,
# which Flux's patterns and the format date-time do not: nobody can read a list of objects
# with such a one among them.
set -eu
out=${1:-$(dirname "$0")/../internal/frontend/flux/crds/yaml}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")"
rm -f "$out"/*.yaml
flux=github.com/fluxcd
go tool controller-gen crd \
	paths=$flux/helm-controller/api/v2 \
	paths=$flux/image-automation-controller/api/v1 \
	paths=$flux/image-reflector-controller/api/v1 \
	paths=$flux/kustomize-controller/api/v1 \
	paths=$flux/notification-controller/api/v1 \
	paths=$flux/notification-controller/api/v1beta3 \
	paths=$flux/source-controller/api/v1 \
	paths=$flux/source-watcher/api/v2/v1beta1 \
	output:crd:dir="$out"
for file in "$out"/*.yaml; do
	awk '
		/^ *lastReconciledDuration:$/ || /^ *pattern: .*[(]ms[|]s[|]m/ {
			message = "must be a duration of less than 290 years"
			rule = "size(self) <= 64 && duration(self) >= duration(\"0s\")"
		}
		/^ *format: date-time$/ {
			message = "must be a time such as 2026-01-31T23:59:59Z"
			rule = "self >= timestamp(\"0001-01-01T00:00:00Z\")"
		}
		{ print }
		rule && /^ *type: string$/ {
			indent = $0
			sub(/type:.*/, "", indent)
			print indent "x-kubernetes-validations:"
			print indent "- message: " message
			print indent "  rule: " rule
			rule = ""
		}
	' "$file" >"$file.new"
	mv "$file.new" "$file"
done
