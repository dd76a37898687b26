#!/usr/bin/env bash
# Runs all tests: the operator's under the race detector, then those of the
# modules beside it. $1 are the operator's packages, the rest words for go test.
# Fails when one of them fails; what was skipped is said at the end.
set -u -o pipefail
cd "$(dirname "$0")/.."
packages=${1:-./...}
shift || true
export PLUMB_LOCALCLUSTER=${PLUMB_LOCALCLUSTER:-$PWD/bin/localcluster}
export PLUMB_KUBECTL=${PLUMB_KUBECTL:-$PWD/bin/kubectl}
mkdir -p bin
CGO_ENABLED=0 go -C tools build -o ../bin/testlog ./testlog || exit 1

failed=0 notes=()
# run NAME DIRECTORY CGO WORD… runs go test there and shows the outcome.
run() {
	local name=$1 directory=$2 cgo=$3
	shift 3
	echo "== $name"
	CGO_ENABLED=$cgo go -C "$directory" test -json "$@" 2>&1 | bin/testlog || failed=1
}

race=(-race) cgo=1
if ! command -v "$(go env CC)" >/dev/null; then
	race=() cgo=0
	notes+=("race detector: it needs a C compiler, and $(go env CC) is not there")
fi
# shellcheck disable=SC2086 # the packages are words
run operator . $cgo ${race[@]+"${race[@]}"} -timeout 60m "$@" $packages
# Compiled as build.sh compiles, so that Kubernetes is not compiled twice.
run "local control plane" localcluster 0 -trimpath -vet=off ./...
# These read all of Kubernetes: some minutes the first time.
echo "== local control plane: go vet, staticcheck"
CGO_ENABLED=0 GOFLAGS=-trimpath go -C localcluster vet ./... || failed=1
staticcheck=$(go tool -modfile=tools/go.mod -n staticcheck) || failed=1
(cd localcluster && CGO_ENABLED=0 GOFLAGS=-trimpath "$staticcheck" ./...) || failed=1
run tools tools 0 ./testlog/...

for note in ${notes[@]+"${notes[@]}"}; do echo "SKIPPED $note"; done
exit $failed
