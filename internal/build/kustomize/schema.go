package kustomize

import (
	"context"
	"fmt"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// places is how many builds can share the schema at a time.
const places = 64

// schema guards the OpenAPI schema that kyaml keeps in variables of its
// package. It is a global because what it guards is one. Builds hold a place:
// with the schema loaded none of them writes more than kyaml's own lock covers.
// A build that sets a schema of its own holds all places. Channels are used and
// not a lock, so that waiting ends with the context of who waits.
var schema = struct {
	load sync.Once
	// taken has an element for each place that is held.
	taken chan struct{}
	// turn is held by the one build that collects all places.
	turn chan struct{}
}{taken: make(chan struct{}, places), turn: make(chan struct{}, 1)}

// copyBytes bounds by how much the copies of a JSON patch may make one object grow.
const copyBytes = 256 << 10

// loadSchema sets what is set once for the process, before the first build.
func loadSchema() {
	openapi.Schema()
	jsonpatch.AccumulatedCopySizeLimit = copyBytes
}

// withSchema runs a build that does not change the schema. It fails where the
// context ends before it starts.
func withSchema(ctx context.Context, build func()) error {
	schema.load.Do(loadSchema)
	if err := take(ctx, schema.taken); err != nil {
		return err
	}
	defer func() { <-schema.taken }()
	build()
	return nil
}

// aloneWithSchema runs a build that may change the schema. It finds Kubernetes'
// own, as each build of Flux does, and leaves it behind. It fails where the
// context ends before it starts.
func aloneWithSchema(ctx context.Context, build func()) error {
	schema.load.Do(loadSchema)
	if err := take(ctx, schema.turn); err != nil {
		return err
	}
	defer func() { <-schema.turn }()
	held := 0
	defer func() {
		for range held {
			<-schema.taken
		}
	}()
	for ; held < places; held++ {
		if err := take(ctx, schema.taken); err != nil {
			return err
		}
	}
	defer func() {
		openapi.ResetOpenAPI()
		openapi.Schema()
	}()
	build()
	return nil
}

// take takes a place, or fails when the context ends first.
func take(ctx context.Context, from chan struct{}) error {
	select {
	case from <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for builds that set an OpenAPI schema: %w", context.Cause(ctx))
	}
}
