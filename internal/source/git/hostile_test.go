package git_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
)

const someCommit = "0123456789abcdef0123456789abcdef01234567"

// line is a packet.
func line(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

// hostile is a server that greets as others do and then does as it likes.
func hostile(t *testing.T, refs, fetch func(w io.Writer)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, line("version 2\n")+line("ls-refs\n")+line("fetch=shallow filter\n")+"0000")
			return
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if strings.Contains(string(body), "command=ls-refs") {
			refs(w)
			return
		}
		fetch(w)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL + "/app"
}

func oneRef(w io.Writer) { _, _ = io.WriteString(w, line(someCommit+" refs/heads/main\n")+"0000") }

// band sends bytes in a band until nobody reads any more.
func band(w io.Writer, number byte, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), 60_000)
		if _, err := io.WriteString(w, line(string(number)+string(data[:n]))); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// forever repeats something until nobody reads any more.
func forever(w io.Writer, number byte, data []byte) {
	for band(w, number, data) == nil {
	}
}

func packHead(count uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), count)
}

// blobOf is a blob in a pack.
func blobOf(content []byte) []byte {
	var out bytes.Buffer
	size := len(content)
	b := byte(3<<4 | size&15)
	for size >>= 4; size > 0; size >>= 7 {
		out.WriteByte(b | 0x80)
		b = byte(size & 0x7f)
	}
	out.WriteByte(b)
	z := zlib.NewWriter(&out)
	_, _ = z.Write(content)
	_ = z.Close()
	return out.Bytes()
}

// TestServersThatNeverEnd: whatever a server sends, and however much, a fetch ends
// with an error of its own, within bounds of memory, and leaves nothing on disk. It is
// not parallel: it looks at the memory of the process.
func TestServersThatNeverEnd(t *testing.T) {
	endless := func(count uint32, entry []byte) func(io.Writer) {
		return func(w io.Writer) {
			_, _ = io.WriteString(w, line("packfile\n"))
			if band(w, 1, packHead(count)) == nil {
				forever(w, 1, entry)
			}
		}
	}
	zeros := blobOf(make([]byte, 1<<20))
	many := bytes.Repeat(blobOf([]byte("x")), 1000)
	for name, test := range map[string]struct {
		refs, fetch func(io.Writer)
		kind        gitops.ErrorKind
		word        string
		within      time.Duration
	}{
		"a million refs": {refs: func(w io.Writer) {
			for i := range 1_000_000 {
				if _, err := io.WriteString(w, line(fmt.Sprintf("%s refs/heads/main%d\n", someCommit, i))); err != nil {
					return
				}
			}
		}, kind: gitops.Invalid, word: "more than 100000 refs"},
		"a pack without an end":           {fetch: endless(400_000, many), kind: gitops.Invalid, word: "more than 262144 bytes"},
		"a pack of four billion objects":  {fetch: endless(1<<32-1, many), kind: gitops.Invalid, word: "4294967295 objects"},
		"a pack that unpacks to far more": {fetch: endless(400_000, zeros), kind: gitops.Invalid, word: "more than 262144 bytes"},
		"one object without an end": {fetch: func(w io.Writer) {
			_, _ = io.WriteString(w, line("packfile\n"))
			// A blob of four GiB, of stored blocks.
			head := append(packHead(1), 0xb0, 0xff, 0xff, 0xff, 0x7f, 0x78, 0x01)
			if band(w, 1, head) == nil {
				block := append([]byte{0, 0xff, 0xff, 0, 0}, make([]byte, 0xffff)...)
				forever(w, 1, block)
			}
		}, kind: gitops.Invalid, word: "more than 262144 bytes"},
		"one object of a size that nobody has": {fetch: func(w io.Writer) {
			_, _ = io.WriteString(w, line("packfile\n"))
			if band(w, 1, append(packHead(1), 0xb0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x78, 0x01)) == nil {
				forever(w, 1, make([]byte, 0xffff))
			}
		}, kind: gitops.Invalid, word: "more than 8589934592 bytes when they are inflated"},
		"progress without an end": {fetch: func(w io.Writer) {
			_, _ = io.WriteString(w, line("packfile\n"))
			forever(w, 2, []byte("counting objects\n"))
		}, kind: gitops.Transient, word: "no answer within the timeout", within: time.Second},
		"sections without an end": {fetch: func(w io.Writer) {
			for {
				if _, err := io.WriteString(w, line("acknowledgments\n")+line("NAK\n")); err != nil {
					return
				}
			}
		}, kind: gitops.Transient, word: "no answer within the timeout", within: time.Second},
		"a pack of nothing": {fetch: func(w io.Writer) {
			_, _ = io.WriteString(w, line("packfile\n")+"0000")
		}, kind: gitops.Transient},
		"a pack that is none": {fetch: func(w io.Writer) {
			_, _ = io.WriteString(w, line("packfile\n"))
			forever(w, 1, []byte("PUCK"))
		}, kind: gitops.Transient, word: "not a pack"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.refs == nil {
				test.refs = oneRef
			}
			url := hostile(t, test.refs, test.fetch)
			dir := t.TempDir()
			s, err := git.Open(dir, git.Options{PackBytes: 256 << 10})
			must(t, err)
			defer s.Close()
			limit := 30 * time.Second
			if test.within > 0 {
				limit = test.within
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = s.Fetch(ctx, git.Request{URL: url, Ref: git.Ref{Branch: "main"}})
			runtime.ReadMemStats(&after)
			if gitops.KindOf(err) != test.kind || !strings.Contains(fmt.Sprint(err), test.word) {
				t.Errorf("error %v of kind %q, want one of kind %q that says %q", err, gitops.KindOf(err), test.kind, test.word)
			}
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 128<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
			if bytes, _ := size(t, dir); bytes > 1<<10 {
				t.Errorf("%d bytes are left behind", bytes)
			}
		})
	}
}
