package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// canned answers every request with the same bytes.
type canned struct{ data []byte }

func (c canned) greeting() io.Reader { return bytes.NewReader(c.data) }
func (c canned) request(context.Context, []byte) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(c.data)), nil
}
func (canned) stateless() bool { return true }
func (canned) close() error    { return nil }

func text(r io.Reader) []byte {
	data, _ := io.ReadAll(r)
	return data
}

// FuzzGreeting: capabilities and refs of any server are bounded.
func FuzzGreeting(f *testing.F) {
	f.Add(text(lines("version 2", "agent=git/2.39", "ls-refs=unborn", "fetch=shallow wait-for-done filter", "object-format=sha1")))
	f.Add(text(lines("# service=git-upload-pack")))
	f.Add(text(io.MultiReader(lines("# service=git-upload-pack"), lines(someID+" HEAD\x00multi_ack shallow filter", someID+" refs/tags/v1", someID+" refs/tags/v1^{}"))))
	f.Add(text(lines("version 1", someID+" refs/heads/main\x00x")))
	f.Add([]byte("0008ERR 0000"))
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := Limits{Refs: 3}
		listed := &harvest{limits: limits, wanted: selection{""}}
		caps, err := readGreeting(bytes.NewReader(data), listed)
		if err == nil && (len(listed.refs) > limits.Refs || len(caps.names) > mostCapabilities || caps.size > longestCapabilities) {
			t.Errorf("%d refs, %d capabilities of %d bytes are taken", len(listed.refs), len(caps.names), caps.size)
		}
		if err != nil && len(fmt.Sprint(err)) > 1000 {
			t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
		}
	})
}

// FuzzRefs: a list of refs ends, is bounded, and has only names that were asked for.
func FuzzRefs(f *testing.F) {
	f.Add(text(lines(someID+" refs/heads/main", someID+" refs/tags/v1 peeled:"+someID)))
	f.Add(text(lines(someID+" refs/heads/../../x", "unborn HEAD symref-target:refs/heads/main")))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &Client{limits: Limits{Refs: 3}}
		caps := &capabilities{version: 2, names: map[string]string{}}
		refs, err := c.lsRefs(t.Context(), canned{data}, caps, []string{"refs/heads/"})
		if err == nil && len(refs) > 3 {
			t.Errorf("%d refs are taken", len(refs))
		}
		for _, ref := range refs {
			if !strings.HasPrefix(ref.Name, "refs/heads/") || len(ref.Name) > LongestRef {
				t.Errorf("ref %q", ref.Name)
			}
		}
	})
}

// FuzzFetch: what is handed on as a pack is what the server sent in its pack's band.
func FuzzFetch(f *testing.F) {
	f.Add(text(io.MultiReader(lines("shallow-info", "shallow "+someID), lines("packfile", "\x02progress", "\x01PACK"))), true)
	f.Add(text(lines("packfile", "\x01PACK", "\x03fatal: out of memory")), true)
	f.Add(text(lines("acknowledgments", "NAK", "ready")), true)
	f.Add(text(io.MultiReader(lines("shallow "+someID), lines("NAK", "\x01PACK"))), false)
	f.Fuzz(func(t *testing.T, data []byte, second bool) {
		taken := 0
		f := &fetch{session: canned{data}, caps: &capabilities{version: 0, names: map[string]string{"side-band-64k": ""}}, receive: func(in io.Reader) error {
			n, err := io.Copy(io.Discard, in)
			taken += int(n)
			return err
		}}
		if second {
			f.caps.version = 2
		}
		o := order{wants: []pack.ID{{1}}, have: []pack.ID{{2}}, shallow: []pack.ID{{2}}, deepen: 1}
		_ = f.run(t.Context(), o)
		_, _ = f.probe0(t.Context(), o)
		if taken > len(data) {
			t.Errorf("%d bytes of a pack in an answer of %d", taken, len(data))
		}
	})
}

// FuzzRedirect: a redirect leads to a repository over HTTP, without credentials.
func FuzzRedirect(f *testing.F) {
	f.Add("https://other/app/info/refs?service=git-upload-pack")
	f.Add("//user:password@other/app/info/refs")
	f.Add("ftp://other/info/refs")
	f.Fuzz(func(t *testing.T, location string) {
		c, err := New(Options{URL: mustURL(t, "https://host/app")})
		if err != nil {
			t.Fatal(err)
		}
		from := endpoint(c.transport.(*httpTransport).origin, "/info/refs")
		to, err := redirect(from, location)
		if err == nil && (to.Scheme != "https" || to.User != nil) {
			t.Errorf("redirected to %q", to)
		}
	})
}
