package egress

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		" 120 ":                         2 * time.Minute,
		"3600":                          time.Hour,
		"3601":                          time.Hour,
		"2147483647":                    time.Hour,
		"99999999999999999999":          0,
		"-5":                            0,
		"1.5":                           0,
		"soon":                          0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT": 0,
		"Sat, 02 Jan 2066 03:03:05 GMT": time.Hour,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q asks for %s, want %s", header, got, want)
		}
	}
}

func TestWishes(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", r.URL.Query().Get("after"))
		switch r.URL.Path {
		case "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/away":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/away?after="+r.URL.Query().Get("after"), http.StatusFound)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	transport, err := NewTransport(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	for name, test := range map[string]struct {
		paths []string
		want  time.Duration
	}{
		"too many requests":             {[]string{"/busy?after=7"}, 7 * time.Second},
		"unavailable":                   {[]string{"/away?after=8"}, 8 * time.Second},
		"behind a redirect":             {[]string{"/moved?after=9"}, 9 * time.Second},
		"an answer, and another status": {[]string{"/fine?after=7", "/broken?after=7"}, 0},
		"the longest of several":        {[]string{"/busy?after=7", "/busy?after=9", "/away?after=8", "/busy?after=x"}, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, asked := Wishes(t.Context())
			for _, path := range test.paths {
				for _, noting := range []bool{false, true} {
					request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					if noting {
						request = request.WithContext(ctx)
					}
					response, err := (&http.Client{Transport: transport}).Do(request)
					if err != nil {
						t.Fatal(err)
					}
					_ = response.Body.Close()
				}
			}
			if got := asked(); got != test.want {
				t.Errorf("asked for %s, want %s", got, test.want)
			}
		})
	}
}
