package sourcetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

func checkHanging(t *testing.T, r Remote) {
	wrong := r.trouble(t)
	r.Put(t, map[string]string{"a": "1"})
	first := r.get(t, "")
	wrong(trouble{hang: true})
	began := time.Now()
	if err := r.refuse(t, r.Fetcher, 200*time.Millisecond); err.Kind != gitops.Transient {
		t.Errorf("kind %q of %q, want %q", err.Kind, err, gitops.Transient)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("two fetches with a deadline of 200ms took %s", took)
	}
	r.check(t, first, map[string]string{"a": "1"})
	wrong(trouble{})
	r.get(t, first.Revision)
}

func checkCanceled(t *testing.T, r Remote) {
	wrong := r.trouble(t)
	r.Put(t, map[string]string{"a": "1"})
	ctx, cancel := context.WithCancel(t.Context())
	wrong(trouble{hang: true, asked: cancel})
	if result, err := r.Fetcher.Fetch(ctx, ""); err == nil {
		result.Release()
		t.Fatal("no error")
	}
	wrong(trouble{})
	r.get(t, "")
}

func checkTruncated(t *testing.T, r Remote) {
	wrong := r.trouble(t)
	files := map[string]string{"a": strings.Repeat("some text of which not all comes ", 50)}
	r.Put(t, files)
	failed := 0
	for _, after := range []int{1, 50, 200, 300, 1000, 3000} {
		wrong(trouble{cut: after})
		err := r.try(t, files)
		if err == nil {
			continue // Whatever was cut off was not needed.
		}
		failed++
		if kind := gitops.KindOf(err); kind != gitops.Transient {
			t.Errorf("cut after %d bytes: kind %q of %q, want %q", after, kind, err, gitops.Transient)
		}
	}
	if failed == 0 {
		t.Error("nothing was cut off that was needed, so that nothing was proven")
	}
	wrong(trouble{})
	r.check(t, r.get(t, ""), files)
}

// noise is text that no compression makes much smaller.
func noise(size int) string {
	random, text := rand.New(rand.NewPCG(1, 2)), make([]byte, size)
	for i := range text {
		text[i] = byte(' ' + random.IntN(95))
	}
	return string(text)
}

// checkOversized checks each limit of the adapter by itself.
func checkOversized(t *testing.T, r Remote) {
	small := map[string]string{"a": "1"}
	for i, limit := range r.Limits {
		t.Run(limit, func(t *testing.T) {
			r.Fetcher = r.Reach(t, Way{Limit: limit})
			small["a"] = fmt.Sprint("a short file, ", i)
			r.Put(t, small)
			first := r.get(t, "")
			r.check(t, first, small)
			r.Put(t, map[string]string{"a": "1", "large": noise(1 << 20)})
			if err := r.refuse(t, r.Fetcher, patience); err.Kind != gitops.Invalid {
				t.Errorf("kind %q of %q, want %q", err.Kind, err, gitops.Invalid)
			}
			r.check(t, first, small)
			r.Put(t, small)
			r.check(t, r.get(t, ""), small)
		})
	}
}

// mostRead is the most that a Fetch may take of a server that sends without an end: much
// more than any limit of its.
const mostRead = 64 << 20

// checkEndless floods instead of an answer, and behind an answer.
func checkEndless(t *testing.T, r Remote) {
	reach := r.Reach
	r.Reach = func(t testing.TB, way Way) source.Fetcher {
		way.Limit = r.Limits[0]
		return reach(t, way)
	}
	r.Fetcher = r.Reach(t, Way{})
	wrong := r.trouble(t)
	files := map[string]string{"a": "1"}
	r.Put(t, files)
	for _, behind := range []bool{false, true} {
		var poured atomic.Int64
		wrong(trouble{flood: &poured, behind: behind})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		result, err := r.Fetcher.Fetch(ctx, "")
		switch {
		case ctx.Err() != nil:
			t.Errorf("flood behind the answer %v: it was read until the deadline", behind)
		case err == nil && behind:
			// Whatever came behind the answer was not needed.
			r.check(t, result, files)
			result.Release()
		case err == nil:
			t.Error("a flood is taken for an answer")
			result.Release()
		}
		cancel()
		if poured.Load() == 0 {
			t.Errorf("flood behind the answer %v: nothing was sent, so that nothing was proven", behind)
		}
		if poured.Load() > mostRead {
			t.Errorf("flood behind the answer %v: a fetch read %d MiB", behind, poured.Load()>>20)
		}
	}
	wrong(trouble{})
	r.check(t, r.get(t, ""), files)
}

// mostAsked is how often a Fetch may ask a server that is out of order.
const mostAsked = 30

func checkServerError(t *testing.T, r Remote) {
	wrong := r.trouble(t)
	r.Put(t, map[string]string{"a": "1"})
	var seen atomic.Int64
	wrong(trouble{fail: func(int64) bool { return true }, seen: &seen})
	if err := r.refuse(t, r.Fetcher, patience); err.Kind != gitops.Transient {
		t.Errorf("kind %q of %q, want %q", err.Kind, err, gitops.Transient)
	}
	if asked := seen.Load(); asked == 0 || asked > 2*mostAsked {
		t.Errorf("two fetches asked %d times", asked)
	}
	wrong(trouble{})
	r.get(t, "")
}

// checkRetry lets two requests fail, one after the other, beginning with each that a fetch
// has: by an answer that says so, and by a connection that ends.
func checkRetry(t *testing.T, r Remote) {
	wrong := r.trouble(t)
	for _, drop := range []bool{false, true} {
		for from, all := int64(0), false; !all; from++ {
			if from > mostAsked {
				t.Fatalf("a fetch asks more than %d times", mostAsked)
			}
			files := map[string]string{"a": fmt.Sprint(from, drop)}
			r.Put(t, files)
			var seen atomic.Int64
			wrong(trouble{fail: func(n int64) bool { return n == from || n == from+1 }, seen: &seen, drop: drop})
			tries := r.again(t, files)
			if all = seen.Load() <= from; all && from == 0 {
				t.Fatal("no request was made, so that nothing was proven")
			}
			if most := 3; tries > most || r.Retries && tries > 1 {
				t.Errorf("requests %d and %d of %d failed (connections end: %v): %d fetches were needed", from, from+1, seen.Load(), drop, tries)
			}
			wrong(trouble{})
		}
	}
}

// try fetches once, and checks the files where that works.
func (r Remote) try(t *testing.T, files map[string]string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := r.Fetcher.Fetch(ctx, "")
	if err == nil {
		r.check(t, result, files)
		result.Release()
	}
	return err
}

// again fetches until it works, at most five times, and tells how often.
func (r Remote) again(t *testing.T, files map[string]string) int {
	t.Helper()
	for tries := 1; ; tries++ {
		err := r.try(t, files)
		if err == nil {
			return tries
		}
		if kind := gitops.KindOf(err); kind != gitops.Transient {
			t.Errorf("kind %q of %q, want %q", kind, err, gitops.Transient)
		}
		if tries == 5 {
			t.Fatal(err)
		}
	}
}
