package apply

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// check finds what can be found without asking about any object: kinds that
// nobody serves or defines, and namespaces that are not there or going.
func (r *run) check(ctx context.Context) error {
	var errs []error
	inNamespace := map[string][]*step{}
	for _, st := range r.stages {
		if st.name == plan.StagePrune {
			continue
		}
		for _, s := range st.steps {
			namespaced, err := r.checkKind(ctx, s)
			if err == nil {
				err = r.checkSecret(s)
			}
			switch {
			case err != nil:
				errs = append(errs, err)
			case namespaced && s.change.Ref.Namespace == "":
				errs = append(errs, r.fail(s, gitops.StageApply, gitops.Invalid, fmt.Errorf("namespace not specified: set metadata.namespace, or a target namespace for the whole set")))
			case namespaced:
				inNamespace[s.change.Ref.Namespace] = append(inNamespace[s.change.Ref.Namespace], s)
			case plan.IsNamespace(s.change.Ref.GroupKind()) && r.req.Live(s.change.Ref).Deleting:
				errs = append(errs, r.fail(s, gitops.StageApply, gitops.Waiting, fmt.Errorf("namespace is being deleted: it can be applied again when it is gone")))
			}
		}
	}
	var firsts []*step
	for name, steps := range inNamespace {
		_, made := r.makes[name]
		_, active := r.active.Load(name)
		if !made && !active {
			firsts = append(firsts, steps[0])
		}
	}
	errs = append(errs, r.each(ctx, firsts, r.checkNamespace)...)
	return join(ctx, r.goOn(errs))
}

// checkKind finds out where objects of the kind are found, and tells whether
// they are in namespaces. A kind that the set defines may be found later.
func (r *run) checkKind(ctx context.Context, s *step) (namespaced bool, err error) {
	ref, version := s.change.Ref, s.change.Version
	s.res, err = r.Cluster.Resource(ctx, ref.GroupKind(), version)
	if err == nil {
		s.found = true
		return s.res.Namespaced, nil
	}
	if d, ok := r.defined[ref.GroupKind()]; ok && cluster.IsNotServed(err) && d.Serves(version) {
		return d.Scope == plan.ScopeNamespaced, nil
	}
	return false, r.refused(s, gitops.StageApply, err)
}

// checkSecret finds a Secret that is still encrypted, and values of one that are
// not encoded. The API server's own answer is an internal error that tells no field.
func (r *run) checkSecret(s *step) error {
	if s.change.Ref.GroupKind() != (gitops.GroupKind{Kind: "Secret"}) || s.change.Manifest == nil {
		return nil
	}
	var secret struct {
		Data map[string]any `json:"data"`
		// SOPS is what SOPS adds to a document that it encrypts.
		SOPS map[string]any `json:"sops"`
	}
	if err := json.Unmarshal(s.change.Manifest.JSON, &secret); err != nil {
		return nil // the API server says what is wrong with it
	}
	if secret.SOPS != nil {
		return r.fail(s, gitops.StageApply, gitops.Invalid, errors.New("it is encrypted with SOPS: configure decryption (spec.decryption), or take the annotation away that turns it off for the object"))
	}
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		text, ok := secret.Data[key].(string)
		if !ok {
			continue
		}
		if _, err := base64.StdEncoding.DecodeString(text); err != nil {
			return r.fail(s, gitops.StageApply, gitops.Invalid, fmt.Errorf("data.%s is not base64: encode it, or put it into stringData", key))
		}
	}
	return nil
}

// checkNamespace asks for a namespace that is not part of the set.
func (r *run) checkNamespace(ctx context.Context, s *step) error {
	name := s.change.Ref.Namespace
	state, err := r.Cluster.NamespaceState(ctx, name)
	switch {
	case apierrors.IsForbidden(err):
		return nil // without the right to look, the write itself will tell
	case err != nil:
		return r.refused(s, gitops.StageApply, err)
	case state == cluster.NamespaceMissing:
		return r.fail(s, gitops.StageApply, gitops.Waiting, namespaceMissing(name))
	case state == cluster.NamespaceTerminating:
		return r.fail(s, gitops.StageApply, gitops.Waiting, namespaceTerminating(name))
	}
	r.active.Store(name, true)
	return nil
}

func namespaceMissing(name string) error {
	return fmt.Errorf("namespace %q does not exist: create it, or declare it in the same set", name)
}

func namespaceTerminating(name string) error {
	return fmt.Errorf("namespace %q is being deleted: objects can be created in it when it is gone and created again", name)
}

// locate finds where the objects of a stage are found, now that the stages
// before it are done.
func (r *run) locate(ctx context.Context, steps []*step) error {
	var open []*step
	for _, s := range steps {
		if !s.found && !s.settled {
			open = append(open, s)
		}
	}
	return join(ctx, r.goOn(r.each(ctx, open, func(ctx context.Context, s *step) error {
		res, err := r.Cluster.Resource(ctx, s.change.Ref.GroupKind(), s.change.Version)
		if err != nil {
			return r.refused(s, gitops.StageApply, err)
		}
		s.res, s.found = res, true
		return nil
	})))
}

// readyEarly are the steps of later stages that can be validated before the
// first write: nothing in the plan changes their kind or makes their namespace.
func (r *run) readyEarly(later []stage) []*step {
	var out []*step
	for _, st := range later {
		if st.name == plan.StagePrune {
			continue
		}
		for _, s := range st.steps {
			_, redefined := r.defined[s.change.Ref.GroupKind()]
			if s.found && !redefined && !r.makes[s.change.Ref.Namespace] {
				out = append(out, s)
			}
		}
	}
	return out
}
