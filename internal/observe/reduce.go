package observe

import (
	"fmt"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// ownFields is our own Apply entry. Objects made from one template have equal
// ones, which are kept once.
type ownFields struct {
	apiVersion string
	fields     unique.Handle[string]
}

func (f *ownFields) entry() metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{APIVersion: f.apiVersion, FieldsV1: metav1.NewFieldsV1(f.fields.Value())}
}

// judges are the rules by which an object of an owner is assessed: the one that its
// marker gets, and others that somebody else looks at it by.
type judges func(owner gitops.OwnerRef) (rule *health.Rule, others []*health.Rule)

// reduce takes what is kept out of an object: whole objects are unstructured, all
// others carry metadata only. Whether the own entry is wanted is said by first.
func reduce(object runtime.Object, kind gitops.GroupKind, keys gitops.Keys, judges judges, first bool) (name, record, error) {
	meta, ok := object.(metav1.Object)
	if !ok {
		return name{}, record{}, fmt.Errorf("%s: %T has no metadata", kind, object)
	}
	n, r := name{namespace: meta.GetNamespace(), name: meta.GetName()}, record{}
	whole, isWhole := object.(*unstructured.Unstructured)
	if isWhole {
		// The fields of managedFields are decoded once for all that follows.
		meta = &metav1.ObjectMeta{
			UID: whole.GetUID(), ResourceVersion: whole.GetResourceVersion(), Generation: whole.GetGeneration(),
			DeletionTimestamp: whole.GetDeletionTimestamp(), Labels: whole.GetLabels(),
			Annotations: whole.GetAnnotations(), ManagedFields: whole.GetManagedFields(),
		}
	}
	r.live = ownership.Observe(meta, keys)
	rule, others := judges(r.live.Owner)
	switch {
	case isWhole:
		r.rule, r.live.Health = rule, rule.Assess(whole)
		for _, other := range others {
			r.others = append(r.others, judged{other, internedHealth(other.Assess(whole))})
		}
	case rule == nil && !health.NeedsStatus(kind):
		r.live.Health = health.OfMetadata(r.live.Deleting)
	}
	r.live = interned(r.live)
	if first {
		if entry, ok := ownership.OwnEntry(meta.GetManagedFields(), keys); ok && entry.FieldsV1 != nil {
			r.own = &ownFields{apiVersion: shared(entry.APIVersion), fields: unique.Make(entry.FieldsV1.GetRawString())}
		}
	}
	return n, r, nil
}

// interned shares the texts that many objects have in common.
func interned(live gitops.Live) gitops.Live {
	o := &live.Owner
	o.Group, o.Kind, o.Namespace, o.Name = shared(o.Group), shared(o.Kind), shared(o.Namespace), shared(o.Name)
	live.Health = internedHealth(live.Health)
	for i := range live.TakeOver {
		live.TakeOver[i] = shared(live.TakeOver[i])
	}
	return live
}

func internedHealth(h gitops.Health) gitops.Health {
	h.Message = shared(h.Message)
	return h
}

func shared(text string) string {
	if text == "" {
		return ""
	}
	return unique.Make(text).Value()
}
