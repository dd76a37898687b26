package flux

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	jsonpatch "github.com/evanphx/json-patch/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/plumb-gitops/plumb/internal/telemetry"
)

// objects reads custom resources of one kind from the cache and writes their
// status and finalizers. It remembers what it wrote until the cache has seen
// it, so that a run never works on a status that is older than its own writes.
type objects[T client.Object] struct {
	client  client.Client
	manager string
	empty   func() T

	mu sync.Mutex
	// written holds the answer to the last write of an object that the cache
	// has not caught up with; guarded by mu.
	written map[types.NamespacedName]T
}

func newObjects[T client.Object](c client.Client, manager string, empty func() T) *objects[T] {
	return &objects[T]{client: c, manager: manager, empty: empty, written: map[types.NamespacedName]T{}}
}

// get reads an object that the caller may change. It is the newer one of the
// cache's and the last one written.
func (o *objects[T]) get(ctx context.Context, key types.NamespacedName) (T, error) {
	obj := o.empty()
	if err := o.client.Get(ctx, key, obj); err != nil {
		if apierrors.IsNotFound(err) {
			o.forget(key)
		}
		return obj, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	written, ok := o.written[key]
	if !ok {
		return obj, nil
	}
	if written.GetUID() != obj.GetUID() || !older(obj, written) {
		delete(o.written, key)
		return obj, nil
	}
	return written.DeepCopyObject().(T), nil
}

// older tells whether a was read before b was. Resource versions of one kind
// are ordered numbers; others are taken to be newer, so that the cache wins.
func older(a, b metav1.Object) bool {
	left, errLeft := strconv.ParseUint(a.GetResourceVersion(), 10, 64)
	right, errRight := strconv.ParseUint(b.GetResourceVersion(), 10, 64)
	return errLeft == nil && errRight == nil && left < right
}

func (o *objects[T]) forget(key types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.written, key)
}

func (o *objects[T]) remember(obj T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	obj.SetManagedFields(nil)
	o.written[client.ObjectKeyFromObject(obj)] = obj
}

// patchStatus writes what differs between the status of before and that of
// after; it writes nothing where nothing differs. It returns the object as the
// API server has it then.
func (o *objects[T]) patchStatus(ctx context.Context, before, after T) (T, error) {
	patch, err := statusPatch(before, after)
	if err != nil || patch == nil {
		return after, err
	}
	// Another object of the same name must not get this one's status.
	patch = withUID(patch, before.GetUID())
	answer := after.DeepCopyObject().(T)
	err = o.client.Status().Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(o.manager))
	if err != nil {
		return after, fmt.Errorf("write status: %w", err)
	}
	o.remember(answer.DeepCopyObject().(T))
	return answer, nil
}

// withUID makes a merge patch fail on any other object of the same name.
func withUID(patch []byte, uid types.UID) []byte {
	return fmt.Appendf(nil, `{"metadata":{"uid":%q},%s`, uid, patch[1:])
}

// statusPatch is the JSON merge patch between two statuses, nil where they are equal.
func statusPatch(before, after any) ([]byte, error) {
	old, err := onlyStatus(before)
	if err != nil {
		return nil, err
	}
	new, err := onlyStatus(after)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.CreateMergePatch(old, new)
	if err != nil {
		return nil, fmt.Errorf("compare statuses: %w", err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	return patch, nil
}

func onlyStatus(obj any) ([]byte, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	var parts struct {
		Status json.RawMessage `json:"status,omitempty"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	return json.Marshal(parts)
}

// setFinalizer adds or removes a finalizer. The write carries the resource
// version, so that finalizers of others are never lost.
func (o *objects[T]) setFinalizer(ctx context.Context, obj T, finalizer string, present bool) (T, error) {
	finalizers := slices.Clone(obj.GetFinalizers())
	has := slices.Contains(finalizers, finalizer)
	switch {
	case has == present:
		return obj, nil
	case present:
		finalizers = append(finalizers, finalizer)
	default:
		finalizers = slices.DeleteFunc(finalizers, func(f string) bool { return f == finalizer })
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"finalizers":      finalizers,
		"resourceVersion": obj.GetResourceVersion(),
	}})
	if err != nil {
		return obj, fmt.Errorf("encode finalizers: %w", err)
	}
	answer := obj.DeepCopyObject().(T)
	err = o.client.Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(o.manager))
	switch {
	case apierrors.IsNotFound(err) && !present:
		return obj, nil
	case err != nil:
		return obj, fmt.Errorf("write finalizers: %w", err)
	}
	if !present {
		o.forget(client.ObjectKeyFromObject(obj))
		return answer, nil
	}
	o.remember(answer.DeepCopyObject().(T))
	return answer, nil
}

// conditioned is a status that conditions are set in, together with the
// generation that they are observed at.
type conditioned struct {
	list       *[]metav1.Condition
	generation int64
}

// maxConditionMessage is the length of a condition's message in bytes.
const maxConditionMessage = 20000

// set adds or replaces a condition. The message is cut to what the API allows.
func (c conditioned) set(kind string, status metav1.ConditionStatus, reason, message string) {
	apimeta.SetStatusCondition(c.list, metav1.Condition{
		Type: kind, Status: status, Reason: reason,
		Message:            clip(telemetry.Redact(message), maxConditionMessage),
		ObservedGeneration: c.generation,
	})
	slices.SortStableFunc(*c.list, func(a, b metav1.Condition) int {
		return strings.Compare(conditionRank(a.Type)+a.Type, conditionRank(b.Type)+b.Type)
	})
}

// conditionRank puts Ready first and the rest in alphabetical order, as Flux does.
func conditionRank(kind string) string {
	if kind == meta.ReadyCondition {
		return "0"
	}
	return "1"
}

func (c conditioned) remove(kinds ...string) {
	for _, kind := range kinds {
		apimeta.RemoveStatusCondition(c.list, kind)
	}
}

func (c conditioned) is(kind string, status metav1.ConditionStatus) bool {
	return apimeta.IsStatusConditionPresentAndEqual(*c.list, kind, status)
}

func (c conditioned) get(kind string) metav1.Condition {
	if found := apimeta.FindStatusCondition(*c.list, kind); found != nil {
		return *found
	}
	return metav1.Condition{}
}

// clip cuts a text to at most n bytes, at the end of a line where there is one.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	text = strings.ToValidUTF8(text[:n-4], "")
	if i := strings.LastIndexByte(text, '\n'); i > n/2 {
		text = text[:i]
	}
	return text + " ..."
}
