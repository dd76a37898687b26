package egress

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// LongestWish is the longest time that a server is left alone because it asks for it.
const LongestWish = time.Hour

// wishKey is where a context keeps what servers ask for.
type wishKey struct{}

// wish is the longest time that a server has asked to be left alone.
type wish struct {
	mu sync.Mutex
	// pause is guarded by mu.
	pause time.Duration
}

// Wishes gives a context in which it is noted for how long servers ask to be left alone
// (Retry-After of RFC 9110, with the status 429 or 503) when requests go through a Transport,
// and what gives the longest of these times so far: 0 for none, LongestWish at most. Nothing
// waits here: it is for whoever decides when to come again.
func Wishes(ctx context.Context) (noting context.Context, asked func() time.Duration) {
	w := &wish{}
	return context.WithValue(ctx, wishKey{}, w), func() time.Duration {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.pause
	}
}

// noteWish notes what an answer asks for.
func noteWish(response *http.Response) {
	w, ok := response.Request.Context().Value(wishKey{}).(*wish)
	if !ok || response.StatusCode != http.StatusTooManyRequests && response.StatusCode != http.StatusServiceUnavailable {
		return
	}
	pause := retryAfter(response.Header.Get("Retry-After"), time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pause = max(w.pause, pause)
}

// retryAfter reads the header of that name: seconds, or a date. What is neither is nothing.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, LongestWish)
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(0, min(date.Sub(now), LongestWish))
	}
	return 0
}
