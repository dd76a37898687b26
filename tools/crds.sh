#!/bin/sh
# Generates the CRDs of all Flux kinds into the folder $1 (default: where the
# operator embeds them), from the API modules that go.mod names.
set -eu
out=${1:-$(dirname "$0")/../internal/frontend/flux/crds/yaml}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")"
rm -f "$out"/*.yaml
flux=github.com/fluxcd
exec go tool controller-gen crd \
	paths=$flux/helm-controller/api/v2 \
	paths=$flux/image-automation-controller/api/v1 \
	paths=$flux/image-reflector-controller/api/v1 \
	paths=$flux/kustomize-controller/api/v1 \
	paths=$flux/notification-controller/api/v1 \
	paths=$flux/notification-controller/api/v1beta3 \
	paths=$flux/source-controller/api/v1 \
	paths=$flux/source-watcher/api/v2/v1beta1 \
	output:crd:dir="$out"
