package flux

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// life is what GitRepositories go through: their remotes change and fail, nothing can be
// stored for a while, and the process is started again.
type life struct {
	t      testing.TB
	client client.Client
	clock  *clocktesting.FakeClock
	remote *scripted
	events *recorded
	folder string
	// what belongs to one process.
	*sourceReconciler[*sourcev1.GitRepository, GitRequest]
	end         func()
	reconciling func(name string) ctrl.Result
	// held are called to have anything packed again, and slow is set where packing may not end.
	held []func()
	slow bool
	// room is what may be stored, in bytes; 0 for all.
	room int64
}

// scripted are remotes and the disk that keeps what was fetched of them, by URL.
type scripted struct {
	mu sync.Mutex
	// heads are the revisions, and away is set while no remote answers; last is what was
	// fetched of each, and asked how often. All here are guarded by mu.
	heads, last map[string]head
	asked       map[string]int
	away        bool
	// wanted is what is kept since the folder was cleaned last.
	wanted []string
	// goOn is closed when what is slow may be packed, and dead when the process ends.
	goOn, dead chan struct{}
	// crowded is set while nothing can be packed.
	crowded atomic.Bool
}

// head is a revision with its files.
type head struct {
	revision string
	files    map[string]string
}

func (s *scripted) Fetch(_ context.Context, request GitRequest, known string) (source.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[request.URL]++
	now, ok := s.heads[request.URL+"#"+request.Ref.Branch]
	if s.away || !ok {
		return source.Result{}, errors.New("the remote does not answer")
	}
	s.last[request.URL+"#"+request.Ref.Branch] = now
	return s.result(now, known), nil
}

func (s *scripted) Last(_ context.Context, request GitRequest) (source.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, ok := s.last[request.URL+"#"+request.Ref.Branch]
	if !ok {
		return source.Result{}, errors.New("nothing was fetched")
	}
	return s.result(last, ""), nil
}

func (s *scripted) Retain(requests []GitRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = nil
	for _, request := range requests {
		s.wanted = append(s.wanted, request.URL)
	}
	return nil
}

func (s *scripted) result(h head, known string) source.Result {
	result := source.Result{Revision: h.revision, Unchanged: known == h.revision, Release: func() {}}
	if !result.Unchanged {
		result.Files = unpackable{sourcetest.Memory(h.files), s.goOn, s.dead, &s.crowded}
	}
	return result
}

// unpackable is a tree that cannot be packed while it has a file of the name full, and is not
// packed before it may be while it has one of the name slow.
type unpackable struct {
	gitops.Tree
	goOn, dead <-chan struct{}
	crowded    *atomic.Bool
}

func (u unpackable) Open(name string) (fs.File, error) {
	switch {
	case name == "full" || u.crowded.Load():
		return nil, errors.New("the disk is full")
	case name == "slow":
		select {
		case <-u.goOn:
		case <-u.dead:
			return nil, errors.New("the process ends")
		}
	}
	return u.Tree.Open(name)
}

// noMetrics counts nothing.
type noMetrics struct{}

func (noMetrics) Reconciled(string, string, string, time.Duration) {}
func (noMetrics) Forget(string, string, string)                    {}
func (noMetrics) Fetched(string, string)                           {}

// recorded are the events of an object.
type recorded struct {
	mu sync.Mutex
	of map[string][]gitops.Event // guarded by mu
}

func (r *recorded) Record(_ string, of corev1.ObjectReference, e gitops.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[of.Name] = append(r.of[of.Name], e)
}

// count is how many events of an object are about a new artifact of a revision.
func (r *recorded) count(name, revision string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.of[name] {
		if e.Reason == "NewArtifact" && e.Revision == "main@sha1:"+revision {
			n++
		}
	}
	return n
}

// all is how many events of an object there are.
func (r *recorded) all(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.of[name])
}

func newLife(t *testing.T, objects ...*sourcev1.GitRepository) *life {
	t.Helper()
	scheme := kruntime.NewScheme()
	if err := sourcev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&sourcev1.GitRepository{}).
		WithIndex(&sourcev1.GitRepository{}, indexInclude, func(obj client.Object) []string {
			var names []string
			for _, include := range obj.(*sourcev1.GitRepository).Spec.Include {
				names = append(names, obj.GetNamespace()+"/"+include.GitRepositoryRef.Name)
			}
			return names
		})
	l := &life{
		t: t, client: builder.Build(), clock: clocktesting.NewFakeClock(time.Unix(1_700_000_000, 0)), folder: t.TempDir(),
		slow: true, events: &recorded{of: map[string][]gitops.Event{}}, remote: &scripted{heads: map[string]head{}, last: map[string]head{}, asked: map[string]int{}, goOn: make(chan struct{})},
	}
	for _, obj := range objects {
		if err := l.client.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	l.start()
	t.Cleanup(func() {
		l.letGo()
		l.packSlow()
		l.end()
	})
	return l
}

// repository is a declaration that follows the branch main of a remote of its name.
func repository(name string, includes ...string) *sourcev1.GitRepository {
	obj := &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name), Generation: 1}}
	obj.Spec.URL, obj.Spec.Reference = "https://"+name, &sourcev1.GitRepositoryRef{Branch: "main"}
	obj.Spec.Interval = metav1.Duration{Duration: time.Minute}
	for _, include := range includes {
		obj.Spec.Include = append(obj.Spec.Include, sourcev1.GitRepositoryInclude{GitRepositoryRef: meta.LocalObjectReference{Name: include}, ToPath: include})
	}
	return obj
}

// start begins a process. Its folder may have been written by one before.
func (l *life) start() {
	l.t.Helper()
	store, err := artifact.Open(l.folder, artifact.Options{Records: 2, TTL: time.Minute, Now: l.clock.Now, Rooms: artifact.NewRooms(l.room, l.clock.Now)})
	if err != nil {
		l.t.Fatal(err)
	}
	cache, err := artifact.OpenCache(l.t.TempDir())
	if err != nil {
		l.t.Fatal(err)
	}
	sources := newSources()
	packed := packed{store: store, rooms: store.Rooms(), baseURL: "http://operator"}
	options := SourceOptions{MinRetryDelay: time.Second, MaxRetryDelay: time.Minute, RequeueDependency: 5 * time.Second}
	secrets := sourceSecrets{references: newReferences(nil, nil, nil), retry: time.Second}
	r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
		kind:    gitRepositories{client: l.client, secrets: secrets, sources: sources, packed: packed, clock: l.clock, options: options},
		fetcher: l.remote, objects: newObjects(l.client, sourceManager, func() *sourcev1.GitRepository { return &sourcev1.GitRepository{} }),
		list:   lists(l.client, func(of *sourcev1.GitRepositoryList) []sourcev1.GitRepository { return of.Items }),
		packed: packed, cache: cache, sources: sources, references: secrets.references, triggers: &triggers{},
		events: &events{recorder: l.events, log: logr.Discard()}, metrics: noMetrics{}, clock: l.clock, options: options,
		pauses: newPauses(), flights: newFlights[GitRequest](), lane: newLane(4), packings: newPackings(), fetched: map[types.UID]fetched{},
		requests: map[types.UID]*followed[GitRequest]{}, packers: map[types.UID]int{}, adopted: adopted{},
	}
	sources.follow(r.published)
	ctx, cancel := context.WithCancel(l.t.Context())
	dead := make(chan struct{})
	l.remote.mu.Lock()
	l.remote.dead = dead
	l.remote.mu.Unlock()
	l.sourceReconciler = r
	l.end = func() {
		cancel()
		close(dead)
		r.work.Wait()
		if err := store.Close(); err != nil {
			l.t.Error(err)
		}
	}
	l.reconciling = func(name string) ctrl.Result {
		result, err := r.reconcile(ctx, ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "a", Name: name}})
		if err != nil {
			l.t.Fatalf("reconcile %q: %v", name, err)
		}
		return result
	}
}

// restart ends the process, and with it what waited to be packed, and begins another one.
func (l *life) restart() {
	l.t.Helper()
	l.end()
	l.held = nil
	l.start()
}

// lose removes what the process has kept in its data folder, which the next one begins with.
func (l *life) lose() {
	l.folder = l.t.TempDir()
	l.remote.mu.Lock()
	defer l.remote.mu.Unlock()
	clear(l.remote.last)
}

// hold has nothing packed until letGo.
func (l *life) hold() {
	for range namespacePackings {
		leave, err := l.packings.take(l.t.Context(), "a")
		if err != nil {
			l.t.Fatal(err)
		}
		l.held = append(l.held, leave)
	}
}

func (l *life) letGo() {
	for _, leave := range l.held {
		leave()
	}
	l.held = nil
}

// packSlow has what is slow packed.
func (l *life) packSlow() {
	if !l.slow {
		return
	}
	l.slow = false
	close(l.remote.goOn)
}

// push gives a remote a revision.
func (l *life) push(name, revision string, files map[string]string) {
	l.remote.mu.Lock()
	defer l.remote.mu.Unlock()
	l.remote.heads["https://"+name+"#main"] = head{"main@sha1:" + revision, maps.Clone(files)}
}

// away has all remotes answer, or none.
func (l *life) away(away bool) {
	l.remote.mu.Lock()
	defer l.remote.mu.Unlock()
	l.remote.away = away
}

func (l *life) asked(name string) int {
	l.remote.mu.Lock()
	defer l.remote.mu.Unlock()
	return l.remote.asked["https://"+name]
}

// look reconciles an object, and then whatever that has triggered, until nothing is under way
// that could trigger more.
func (l *life) look(name string) ctrl.Result {
	l.t.Helper()
	result := l.reconciling(name)
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		next, busy := l.triggered()
		switch {
		case next == name:
			result = l.reconciling(name)
		case next != "":
			l.reconciling(next)
		case !busy:
			return result
		}
		if time.Now().After(end) {
			l.t.Fatalf("%q is reconciled without an end", name)
		}
	}
}

// triggered takes one object that is to be reconciled; empty for none. Busy says that there may
// be one soon.
func (l *life) triggered() (name string, busy bool) {
	l.mu.Lock()
	for uid, n := range l.packers {
		_, waits := l.remote.heads["https://"+string(uid)+"#main"].files["slow"]
		busy = busy || n > 0 && len(l.held) == 0 && (!waits || !l.slow)
	}
	l.mu.Unlock()
	l.flights.mu.Lock()
	busy = busy || len(l.flights.byObject) > 0
	l.flights.mu.Unlock()
	l.triggers.mu.Lock()
	defer l.triggers.mu.Unlock()
	for key := range l.triggers.early {
		delete(l.triggers.early, key)
		return key.Name, true
	}
	return "", busy
}

// wait has time pass in which objects are looked at, in order, and old files are removed.
func (l *life) wait(d time.Duration, names ...string) {
	l.t.Helper()
	for range d / (10 * time.Second) {
		l.clock.Step(10 * time.Second)
		if _, err := l.packed.store.Collect(); err != nil {
			l.t.Fatal(err)
		}
		for _, name := range names {
			l.look(name)
		}
	}
}

func (l *life) get(name string) *sourcev1.GitRepository {
	l.t.Helper()
	obj := &sourcev1.GitRepository{}
	if err := l.client.Get(l.t.Context(), client.ObjectKey{Namespace: "a", Name: name}, obj); err != nil {
		l.t.Fatal(err)
	}
	return obj
}

// edit changes the declaration of an object.
func (l *life) edit(name string, change func(*sourcev1.GitRepository)) {
	l.t.Helper()
	obj := l.get(name)
	change(obj)
	obj.Generation++
	if err := l.client.Update(l.t.Context(), obj); err != nil {
		l.t.Fatal(err)
	}
}

// request asks for a reconciliation.
func (l *life) request(name, token string) {
	l.t.Helper()
	obj := l.get(name)
	obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: token}
	if err := l.client.Update(l.t.Context(), obj); err != nil {
		l.t.Fatal(err)
	}
}

// expect checks which revision the status advertises, that others are given it, which one the
// consumers in the process have, and what Ready says.
func (l *life) expect(when, name, advertised, used string, ready metav1.ConditionStatus, words string) {
	l.t.Helper()
	obj := l.get(name)
	got, status := "", http.StatusOK
	if a := obj.Status.Artifact; a != nil {
		got = strings.TrimPrefix(a.Revision, "main@sha1:")
		w := httptest.NewRecorder()
		l.packed.store.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+a.Path, nil))
		if status = w.Result().StatusCode; status == http.StatusOK && w.Result().Header.Get("Etag") != `"`+a.Digest+`"` {
			l.t.Errorf("%s: another file is served than the advertised one", when)
		}
		_, _ = io.Copy(io.Discard, w.Result().Body)
	}
	if got != advertised || status != http.StatusOK {
		l.t.Errorf("%s: %q is advertised, and answered with %d; want %q and 200", when, got, status, advertised)
	}
	if in := strings.TrimPrefix(l.sources.revision(l.ref(obj)), "main@sha1:"); in != used {
		l.t.Errorf("%s: consumers have %q, want %q", when, in, used)
	}
	c := apimeta.FindStatusCondition(obj.Status.Conditions, meta.ReadyCondition)
	if c == nil {
		c = &metav1.Condition{}
	}
	if c.Status != ready || !strings.Contains(c.Message, words) {
		l.t.Errorf("%s: Ready is %q, %q; want %q with %q", when, c.Status, c.Message, ready, words)
	}
}
