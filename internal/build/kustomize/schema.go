package kustomize

import (
	"sync"

	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// schema guards the OpenAPI schema that kyaml keeps in variables of its
// package. It is a global because what it guards is one. Builds hold it for
// reading: with the schema loaded none of them writes more than kyaml's own
// lock covers. A build that sets a schema of its own holds it for writing.
var schema struct {
	sync.RWMutex
	load sync.Once
}

// withSchema runs a build that does not change the schema.
func withSchema(build func()) {
	schema.load.Do(func() { openapi.Schema() })
	schema.RLock()
	defer schema.RUnlock()
	build()
}

// aloneWithSchema runs a build that may change the schema. It finds Kubernetes'
// own, as each build of Flux does, and leaves it behind.
func aloneWithSchema(build func()) {
	schema.load.Do(func() { openapi.Schema() })
	schema.Lock()
	defer schema.Unlock()
	defer func() {
		openapi.ResetOpenAPI()
		openapi.Schema()
	}()
	build()
}
