// Package ownership reads and writes what managedFields say about an object:
// which of its fields are ours, which belong to managers that we take over, and
// whether an object is still as our last apply left it.
//
// It holds the knowledge of the fieldsV1 format and of server-side apply, and
// nothing else: no client, no API group, no schema of a kind. Every function is
// pure. Where something cannot be known without a schema, the answer is the one
// that costs a request and not the one that misses a change.
//
// The observer reduces objects with it, the applier takes fields over with it and
// compares what it sent with what it got, the engine asks it after a restart
// whether an object has to be looked at.
package ownership

import (
	"crypto/sha256"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Observe reduces an object's metadata to what is kept of it. Health is left
// empty: it is not a matter of metadata. An entry of managedFields that cannot be
// read counts as one that holds fields.
func Observe(meta metav1.Object, keys gitops.Keys) gitops.Live {
	entries := meta.GetManagedFields()
	live := gitops.Live{
		UID:             string(meta.GetUID()),
		ResourceVersion: meta.GetResourceVersion(),
		Generation:      meta.GetGeneration(),
		Deleting:        meta.GetDeletionTimestamp() != nil,
		TakeOver:        takeOverNames(entries, keys),
		Owner:           keys.Owner(meta.GetLabels()),
		Policy:          keys.Policy(meta.GetAnnotations(), meta.GetLabels()),
	}
	own := ownEntries(entries, keys)
	live.Fields = digest(own)
	for _, e := range own {
		if e.Time != nil {
			live.AppliedAt = max(live.AppliedAt, e.Time.Unix())
		}
	}
	return live
}

// OwnEntry is our own Apply entry, for a later call of NamesExactly without the
// object. It is false where there is none, or more than one.
func OwnEntry(managedFields []metav1.ManagedFieldsEntry, keys gitops.Keys) (metav1.ManagedFieldsEntry, bool) {
	own := ownEntries(managedFields, keys)
	if len(own) != 1 {
		return metav1.ManagedFieldsEntry{}, false
	}
	return *own[0], true
}

// ownEntries are our Apply entries without subresource, ordered by API version.
// The API server keeps one of them; more than one comes from a foreign hand.
func ownEntries(entries []metav1.ManagedFieldsEntry, keys gitops.Keys) []*metav1.ManagedFieldsEntry {
	var own []*metav1.ManagedFieldsEntry
	for i := range entries {
		if isOwn(&entries[i], keys) {
			own = append(own, &entries[i])
		}
	}
	slices.SortStableFunc(own, func(a, b *metav1.ManagedFieldsEntry) int {
		return strings.Compare(a.APIVersion, b.APIVersion)
	})
	return own
}

func isOwn(e *metav1.ManagedFieldsEntry, keys gitops.Keys) bool {
	return e.Manager == keys.Manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
}

// digest is the sum of the entries' fields; zero for none. It is taken of a
// canonical form, as the order of elements and the escapes in their names differ
// between an API server's protobuf, its JSON, and an entry that was decoded into a
// map and encoded again.
func digest(own []*metav1.ManagedFieldsEntry) gitops.Digest {
	switch len(own) {
	case 0:
		return gitops.Digest{}
	case 1:
		return sha256.Sum256(canonical(rawFields(own[0])))
	}
	sum := sha256.New()
	for _, e := range own {
		fields := sha256.Sum256(canonical(rawFields(e)))
		sum.Write([]byte(e.APIVersion + "\n"))
		sum.Write(fields[:])
	}
	return gitops.Digest(sum.Sum(nil))
}

func rawFields(e *metav1.ManagedFieldsEntry) []byte {
	if e.FieldsV1 == nil {
		return nil
	}
	return e.FieldsV1.GetRawBytes()
}

// canonical is one form for all documents that name the same fields. What cannot
// be read is taken as it is.
func canonical(raw []byte) []byte {
	n, err := parseFields(raw)
	if err != nil {
		return raw
	}
	return n.appendTo(make([]byte, 0, len(raw)))
}
