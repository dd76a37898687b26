#!/bin/sh
# Builds localcluster and kubectl into the folder $1 (default: ../bin), with the
# version of Kubernetes that go.mod names: clients read it from the server.
set -eu
out=$(mkdir -p "${1:-$(dirname "$0")/../bin}" && cd "${1:-$(dirname "$0")/../bin}" && pwd)
cd "$(dirname "$0")"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
major=${version#v}
major=${major%%.*}
minor=${version#v*.}
minor=${minor%%.*}
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
	flags="$flags -X $package.gitTreeState=clean -X $package.gitCommit="
done
exec go build -ldflags "$flags" -o "$out/" ./cmd/localcluster ./cmd/kubectl
