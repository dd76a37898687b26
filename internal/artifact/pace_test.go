package artifact

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A server that says nothing, or next to nothing, is given up long before the context ends.
// One that is slow and keeps the pace is not.
func TestCacheGivesUpAServerThatHangs(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("one"))
	write := func(w http.ResponseWriter, r *http.Request, part int, pause time.Duration, most int) {
		for at := 0; at < most && r.Context().Err() == nil; at += part {
			from, to := min(at, len(content)), min(at+part, len(content))
			if from == to {
				_, _ = w.Write(make([]byte, part)) // never the end of it
			} else {
				_, _ = w.Write(content[from:to])
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(pause)
		}
	}
	for name, test := range map[string]struct {
		pace   pace
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
	}{
		"silent": {
			pace{1, time.Second / 2}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "hangs: fewer than 1 bytes in 500ms",
		},
		"silent after the header": {
			pace{1, time.Second / 2}, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}, "hangs: fewer than 1 bytes in 500ms",
		},
		"drips": {
			pace{len(content) + 1<<10, time.Second}, func(w http.ResponseWriter, r *http.Request) {
				write(w, r, 1, 50*time.Millisecond, 1<<20)
			}, "its server hangs: fewer than",
		},
		"slow": {
			pace{1, time.Minute}, func(w http.ResponseWriter, r *http.Request) {
				write(w, r, len(content)/4+1, time.Second/4, len(content))
			}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(test.answer))
			t.Cleanup(server.Close)
			t.Cleanup(server.CloseClientConnections)
			c := openCache(t, t.TempDir())
			c.most.pace = test.pace
			_, release, err := c.Get(t.Context(), server.URL, digestOf(content), "")
			switch {
			case err == nil:
				release()
				if test.want != "" {
					t.Error("it is taken")
				}
			case test.want == "" || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), server.URL):
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
