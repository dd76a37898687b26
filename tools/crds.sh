#!/bin/sh
# Generates the CRDs of all Flux kinds into the folder $1 (default: where the
# operator embeds them), from the API modules that go.mod names. A duration that
# Go cannot read, such as 99999999999999999m, is refused, which Flux's patterns do not:
# nobody can read a list of objects with such a one among them.
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
		/^ *lastReconciledDuration:$/ || /^ *pattern: .*[(]ms[|]s[|]m/ { duration = 1 }
		{ print }
		duration && /^ *type: string$/ {
			indent = $0
			sub(/type:.*/, "", indent)
			print indent "x-kubernetes-validations:"
			print indent "- message: must be a duration of less than 290 years"
			print indent "  rule: size(self) <= 64 && duration(self) >= duration(\"0s\")"
			duration = 0
		}
	' "$file" >"$file.new"
	mv "$file.new" "$file"
done
