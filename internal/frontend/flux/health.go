package flux

import (
	"crypto/sha256"
	"fmt"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// maxHealthChecks bounds the expressions of one object.
const maxHealthChecks = 100

// HealthRules reads spec.healthCheckExprs. As in Flux the version is not looked at,
// a check without kind is for the whole group, and one with a kind goes before it.
// The error names the field at fault and quotes the expression.
func HealthRules(language *health.Language, checks []kustomize.CustomHealthCheck) (*health.Rules, error) {
	if len(checks) > maxHealthChecks {
		return nil, fmt.Errorf("spec.healthCheckExprs has %d entries; at most %d are served", len(checks), maxHealthChecks)
	}
	rules := map[gitops.GroupKind]*health.Rule{}
	for i, check := range checks {
		field := fmt.Sprintf("spec.healthCheckExprs[%d]", i)
		gv, err := schema.ParseGroupVersion(check.APIVersion)
		if err != nil || check.APIVersion == "" {
			return nil, fmt.Errorf("%s.apiVersion: %q is no group/version", field, check.APIVersion)
		}
		kind := gitops.GroupKind{Group: gv.Group, Kind: check.Kind}
		if rules[kind] != nil {
			return nil, fmt.Errorf("%s: apiVersion %q and kind %q have an entry before it; join the two", field, check.APIVersion, check.Kind)
		}
		rules[kind], err = language.Rule(health.Expressions{Current: check.Current, InProgress: check.InProgress, Failed: check.Failed})
		if err != nil {
			return nil, fmt.Errorf("%s.%w", field, err)
		}
	}
	return health.NewRules(rules), nil
}

// healthRules keeps the rules of all objects, those of one text once: an expression
// is compiled when it is written, and not for each run.
type healthRules struct {
	language *health.Language

	mu sync.Mutex
	// texts and read are guarded by mu.
	texts map[client.ObjectKey]gitops.Digest
	read  map[gitops.Digest]*readRules
}

type readRules struct {
	rules *health.Rules
	err   error
	users int
}

func newHealthRules(language *health.Language) *healthRules {
	return &healthRules{language: language, texts: map[client.ObjectKey]gitops.Digest{}, read: map[gitops.Digest]*readRules{}}
}

// of gives the rules of an object. The error stalls it.
func (h *healthRules) of(obj *kustomizev1.Kustomization) (*health.Rules, error) {
	key, checks := client.ObjectKeyFromObject(obj), obj.Spec.HealthCheckExprs
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(checks) == 0 {
		h.drop(key)
		return nil, nil
	}
	text := gitops.Digest(sha256.Sum256(fmt.Appendf(nil, "%q", checks)))
	if h.texts[key] != text {
		h.drop(key)
		if h.read[text] == nil {
			rules, err := HealthRules(h.language, checks)
			if err != nil {
				err = &blocked{reason: meta.InvalidCELExpressionReason, stalled: true, cause: err}
			}
			h.read[text] = &readRules{rules: rules, err: err}
		}
		h.texts[key] = text
		h.read[text].users++
	}
	return h.read[text].rules, h.read[text].err
}

// forget drops what is kept for an object.
func (h *healthRules) forget(key client.ObjectKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(key)
}

func (h *healthRules) drop(key client.ObjectKey) {
	text, known := h.texts[key]
	if !known {
		return
	}
	delete(h.texts, key)
	if h.read[text].users--; h.read[text].users == 0 {
		delete(h.read, text)
	}
}
