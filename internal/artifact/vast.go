package artifact

import (
	"context"
	"fmt"
	"sync"
)

const (
	// vastList is how many bytes the list of an artifact's files has that nearly all
	// artifacts are content with: some 15,000 files.
	vastList = 2 << 20
	// vastPlaces is how many artifacts with more are unpacked at once.
	vastPlaces = 2
	// listedBytes is what a list holds of a file beside its name.
	listedBytes = 80
)

// vast bounds what the lists of files hold in memory, while artifacts with very many files are
// unpacked or read: a small archive may have 200,000, with long names. Few are unpacked at
// once, and of a namespace one, so that those of one tenant do not keep another's waiting; and
// of one at a time a table is made, which takes a moment.
type vast struct {
	least  int
	places chan struct{}
	making sync.Mutex

	mu sync.Mutex
	// turns are those of namespaces with an artifact that is unpacked or waits; guarded by mu.
	turns map[string]*vastTurn
}

// vastTurn has one place, which is taken by an artifact of the namespace.
type vastTurn struct {
	place chan struct{}
	users int // guarded by vast.mu
}

func newVast() *vast {
	return &vast{least: vastList, places: make(chan struct{}, vastPlaces), turns: map[string]*vastTurn{}}
}

// alone waits until nobody else makes a table of a list with many bytes.
func (v *vast) alone(bytes int64) (leave func()) {
	if bytes <= int64(v.least) {
		return func() {}
	}
	v.making.Lock()
	return v.making.Unlock
}

// take waits for a place.
func (v *vast) take(ctx context.Context) (leave func(), err error) {
	tenant := Tenant(ctx)
	v.mu.Lock()
	turn := v.turns[tenant]
	if turn == nil {
		turn = &vastTurn{place: make(chan struct{}, 1)}
		v.turns[tenant] = turn
	}
	turn.users++
	v.mu.Unlock()
	var taken []chan struct{}
	leave = func() {
		for _, place := range taken {
			<-place
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		if turn.users--; turn.users == 0 {
			delete(v.turns, tenant)
		}
	}
	places := []chan struct{}{turn.place, v.places}
	if tenant == "" {
		places = places[1:] // nobody counts
	}
	for _, place := range places {
		select {
		case place <- struct{}{}:
			taken = append(taken, place)
		case <-ctx.Done():
			leave()
			return nil, fmt.Errorf("it has very many files, and others with as many are still being unpacked: %w", ctx.Err())
		}
	}
	return leave, nil
}

// growing is how much memory the list of an artifact holds that is being unpacked.
type growing struct {
	ctx   context.Context //nolint:containedctx // that of the unpacking
	of    *vast
	bytes int
	left  func()
}

// add counts a file with a name, and waits for a place where the list becomes vast.
func (l *growing) add(name string) (err error) {
	if l.bytes += len(name) + listedBytes; l.bytes > l.of.least && l.left == nil {
		l.left, err = l.of.take(l.ctx)
	}
	return err
}

// leave is called when the list is not held any more.
func (l *growing) leave() {
	if l.left != nil {
		l.left()
	}
}
