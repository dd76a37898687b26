package flux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

var (
	// errReferenceUnread is given until a reference has been read for the first time.
	errReferenceUnread = errors.New("not read yet")
	// errReferenceMissing is given for an object that does not exist.
	errReferenceMissing = errors.New("not found")
	// errReferenceDenied is given for an object that may not be read.
	errReferenceDenied = errors.New("not readable")
)

const (
	secretKind         = "Secret"
	configMapKind      = "ConfigMap"
	serviceAccountKind = "ServiceAccount"

	// pullSecretsKey is where the names of a ServiceAccount's pull secrets are.
	pullSecretsKey = "imagePullSecrets"
)

// reference names a ConfigMap, Secret or ServiceAccount that a spec refers to.
type reference struct {
	kind, namespace, name string
	// as is the user with whose rights it is read; empty for the operator.
	as string
}

// references keeps the ConfigMaps, Secrets and ServiceAccounts that specs refer to, each by a
// watch of its own name: reading one costs no request, a change wakes who
// refers to it, and nothing else of a namespace is ever read. Their values stay
// in memory.
type references struct {
	client kubernetes.Interface
	// clientAs makes a client that acts as a user.
	clientAs func(user string) (typedcorev1.CoreV1Interface, error)
	// changed wakes an owner.
	changed func(gitops.OwnerRef)

	mu sync.Mutex
	// lifetime is that of the process's work; nil before start. Guarded by mu,
	// as are the maps.
	lifetime context.Context
	watched  map[reference]*watched
	owners   map[gitops.OwnerRef][]reference
	running  sync.WaitGroup
}

// watched is one object; its fields are guarded by the table's lock.
type watched struct {
	users  map[gitops.OwnerRef]bool
	stop   context.CancelFunc
	read   bool
	exists bool
	data   map[string][]byte
	// denied is why it may not be read; nil where it may, or that is not known.
	denied error
}

func newReferences(client kubernetes.Interface, clientAs func(string) (typedcorev1.CoreV1Interface, error), changed func(gitops.OwnerRef)) *references {
	return &references{
		client: client, clientAs: clientAs, changed: changed,
		watched: map[reference]*watched{}, owners: map[gitops.OwnerRef][]reference{},
	}
}

// Start runs the watches until the context ends, and waits for their end.
func (r *references) Start(ctx context.Context) error {
	r.mu.Lock()
	r.lifetime = ctx
	for ref, w := range r.watched {
		r.watch(ref, w)
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.running.Wait()
	return nil
}

// want declares what an owner refers to, in place of what it declared before.
func (r *references) want(owner gitops.OwnerRef, refs []reference) error {
	owner = owner.Key()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range refs {
		if ref.kind != secretKind && ref.kind != configMapKind && ref.kind != serviceAccountKind {
			return fmt.Errorf("kind %q cannot be referred to: only Secret, ConfigMap and ServiceAccount can", ref.kind)
		}
		w := r.watched[ref]
		if w == nil {
			w = &watched{users: map[gitops.OwnerRef]bool{}}
			r.watched[ref] = w
			if r.lifetime != nil {
				r.watch(ref, w)
			}
		}
		w.users[owner] = true
	}
	wanted := map[reference]bool{}
	for _, ref := range refs {
		wanted[ref] = true
	}
	for _, ref := range r.owners[owner] {
		if !wanted[ref] {
			r.leave(owner, ref)
		}
	}
	if len(refs) == 0 {
		delete(r.owners, owner)
	} else {
		r.owners[owner] = refs
	}
	return nil
}

// release drops all that an owner refers to.
func (r *references) release(owner gitops.OwnerRef) { _ = r.want(owner, nil) }

// leave is called with the lock held.
func (r *references) leave(owner gitops.OwnerRef, ref reference) {
	w := r.watched[ref]
	if w == nil {
		return
	}
	delete(w.users, owner)
	if len(w.users) > 0 {
		return
	}
	if w.stop != nil {
		w.stop()
	}
	delete(r.watched, ref)
}

// read gives the data of a wanted reference.
func (r *references) read(ref reference) (map[string][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[ref]
	switch {
	case w != nil && w.denied != nil:
		return nil, fmt.Errorf("%w: %w; it needs get, list and watch", errReferenceDenied, w.denied)
	case w == nil || !w.read:
		return nil, errReferenceUnread
	case !w.exists:
		return nil, errReferenceMissing
	}
	return w.data, nil
}

// core is the client that a reference is read with: one that acts as a user, or the
// operator's own where that is empty.
func (r *references) core(as string) (typedcorev1.CoreV1Interface, error) {
	if as == "" {
		return r.client.CoreV1(), nil
	}
	return r.clientAs(as)
}

// watch is called with the lock held.
func (r *references) watch(ref reference, w *watched) {
	ctx, stop := context.WithCancel(r.lifetime)
	w.stop = stop
	resource, expected := "configmaps", any(&corev1.ConfigMap{})
	switch ref.kind {
	case secretKind:
		resource, expected = "secrets", &corev1.Secret{}
	case serviceAccountKind:
		resource, expected = "serviceaccounts", &corev1.ServiceAccount{}
	}
	client, err := r.core(ref.as)
	if err != nil {
		w.denied = err
		return
	}
	lw := cache.NewListWatchFromClient(client.RESTClient(), resource, ref.namespace, fields.OneTermEqualSelector("metadata.name", ref.name))
	list, watch := lw.ListWithContextFunc, lw.WatchFuncWithContext
	lw.ListWithContextFunc = func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		answer, err := list(ctx, options)
		r.answered(w, err)
		return answer, err
	}
	lw.WatchFuncWithContext = func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
		answer, err := watch(ctx, options)
		r.answered(w, err)
		return answer, err
	}
	reflector := cache.NewReflectorWithOptions(lw, expected, &referenceStore{table: r, ref: ref, of: w}, cache.ReflectorOptions{
		Name: "reference", MinWatchTimeout: 30 * time.Minute,
	})
	r.running.Go(func() { reflector.RunWithContext(ctx) })
}

// answered takes over whether the object may be read. One that may not be read any more
// is forgotten.
func (r *references) answered(w *watched, err error) {
	denied := apierrors.IsForbidden(err)
	r.mu.Lock()
	news := denied != (w.denied != nil)
	switch {
	case denied:
		w.denied, w.read, w.data = err, false, nil
	case err == nil:
		w.denied = nil
	default:
		news = false // not known
	}
	var users []gitops.OwnerRef
	if news {
		users = slices.Collect(maps.Keys(w.users))
	}
	r.mu.Unlock()
	for _, owner := range users {
		r.changed(owner)
	}
}

// set takes over what a watch saw, and wakes the users where it is new.
func (r *references) set(w *watched, exists bool, data map[string][]byte) {
	r.mu.Lock()
	same := w.read && w.exists == exists && maps.EqualFunc(w.data, data, func(a, b []byte) bool { return string(a) == string(b) })
	w.read, w.exists, w.data = true, exists, data
	var users []gitops.OwnerRef
	if !same {
		for owner := range w.users {
			users = append(users, owner)
		}
	}
	r.mu.Unlock()
	for _, owner := range users {
		r.changed(owner)
	}
}

// referenceStore is where a reflector puts the one object that it watches.
type referenceStore struct {
	table *references
	ref   reference
	of    *watched
}

func (s *referenceStore) Add(obj any) error {
	data := map[string][]byte{}
	switch o := obj.(type) {
	case *corev1.Secret:
		maps.Copy(data, o.Data)
	case *corev1.ServiceAccount:
		var names []string
		for _, ref := range o.ImagePullSecrets {
			names = append(names, ref.Name)
		}
		data[pullSecretsKey] = []byte(strings.Join(names, " "))
	case *corev1.ConfigMap:
		maps.Copy(data, o.BinaryData)
		for key, value := range o.Data {
			data[key] = []byte(value)
		}
	}
	s.table.set(s.of, true, data)
	return nil
}

func (s *referenceStore) Update(obj any) error { return s.Add(obj) }

func (s *referenceStore) Delete(any) error {
	s.table.set(s.of, false, nil)
	return nil
}

func (s *referenceStore) Replace(list []any, _ string) error {
	if len(list) == 0 {
		return s.Delete(nil)
	}
	return s.Add(list[0])
}

func (s *referenceStore) Resync() error { return nil }
