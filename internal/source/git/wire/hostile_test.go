package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
)

// lines makes packets of texts, and a flush after them.
func lines(texts ...string) io.Reader {
	m := &message{}
	for _, text := range texts {
		m.line("%s", text)
	}
	m.flush()
	return bytes.NewReader(m.Bytes())
}

func times(n int, format string) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf(format, i)
	}
	return texts
}

const someID = "0123456789abcdef0123456789abcdef01234567"

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	greeting := func(capabilities ...string) func() error {
		return func() error {
			_, err := readGreeting(lines(append([]string{"version 2", "ls-refs", "fetch"}, capabilities...)...), &harvest{})
			return err
		}
	}
	old := func(words ...string) func() error {
		return func() error {
			_, err := readGreeting(lines(someID+" refs/heads/main\x00"+strings.Join(words, " ")), &harvest{})
			return err
		}
	}
	refs := func(limit int, texts ...string) func() error {
		return func() error {
			return (&harvest{limits: Limits{Refs: limit}}).read(newPackets(lines(texts...)))
		}
	}
	wanted := func(count, length int) func() error {
		return func() error {
			m := &message{}
			for i := range count {
				m.line("%s refs/heads/%0*d", someID, length-len("refs/heads/"), i)
			}
			m.flush()
			return (&harvest{wanted: selection{"refs/"}}).read(newPackets(m))
		}
	}
	for name, test := range map[string]struct {
		read func() error
		want Code
	}{
		"as many capabilities as are allowed":      {greeting(times(98, "c%d=x")...), ""},
		"too many capabilities":                    {greeting(times(99, "c%d=x")...), CodeTooLarge},
		"capabilities that are too long":           {greeting(times(3, "c%d="+strings.Repeat("x", 30_000))...), CodeTooLarge},
		"one capability again and again":           {greeting(times(90, "c="+strings.Repeat("x", 1000)+"%d")...), CodeTooLarge},
		"too many capabilities in version 0":       {old(times(101, "c%d")...), CodeTooLarge},
		"as many capabilities as are allowed in 0": {old(times(100, "c%d")...), ""},
		"a ref as long as is allowed":              {refs(0, someID+" "+strings.Repeat("r", 1024)), ""},
		"a ref that is too long":                   {refs(0, someID+" "+strings.Repeat("r", 1025)), CodeTooLarge},
		"too many refs":                            {refs(5, times(6, someID+" refs/heads/b%d")...), CodeTooLarge},
		"too many bytes of refs": {func() error {
			line := fmt.Sprintf("%04x%s refs/heads/b %s\n", 60_000, someID, strings.Repeat("x", 60_000-4-40-14-1))
			endless := io.MultiReader(bytes.NewReader(bytes.Repeat([]byte(line), 2400)), strings.NewReader("0000"))
			return (&harvest{}).read(newPackets(endless))
		}, CodeTooLarge},
		"shallow commits without an end in version 0": {func() error {
			line := fmt.Sprintf("%04xshallow %s", 60_000, strings.Repeat("x", 60_000-12))
			endless := io.MultiReader(lines(someID+" refs/heads/main\x00x"), bytes.NewReader(bytes.Repeat([]byte(line), 2400)))
			first := make([]byte, len(someID)+len(" refs/heads/main\x00x\n")+4)
			_, _ = io.ReadFull(endless, first)
			_, _ = io.ReadFull(endless, make([]byte, 4)) // the flush
			_, err := readGreeting(io.MultiReader(bytes.NewReader(first), endless), &harvest{})
			return err
		}, CodeTooLarge},
		"as many bytes of refs that are wanted as are allowed": {wanted(100_000, 80), ""},
		"too many bytes of refs that are wanted":               {wanted(100_000, 90), CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.read()
			if test.want == "" && err != nil || test.want != "" && CodeOf(err) != test.want {
				t.Errorf("got error %v of code %q, want %q", err, CodeOf(err), test.want)
			}
		})
	}
}

func TestMetadataAddressesAreRefused(t *testing.T) {
	t.Parallel()
	// Nothing of this leaves the machine, even where nobody refuses it: the
	// proxies are not there.
	for _, target := range []string{"http://169.254.169.254/x", "https://[fe80::1]/x", "http://[fd00:ec2::254]/x", "http://169.254.169.254:22/x"} {
		for _, proxy := range []string{"http://127.0.0.1:1", "socks5://127.0.0.1:1"} {
			expectRefused(t, target, proxy)
		}
	}
}

func expectRefused(t *testing.T, target, proxy string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{URL: u, Proxy: Proxy{Address: proxy}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Refs(t.Context(), []string{"refs/heads/main"})
	if CodeOf(err) != CodeUnsupported || !strings.HasPrefix(fmt.Sprint(err), "connections to ") {
		t.Errorf("%s through %q: got error %v", target, proxy, err)
	}
}

func TestRedirectsStayWithTLS(t *testing.T) {
	t.Parallel()
	from, err := url.Parse("https://host/app/info/refs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := redirect(from, "http://host/app/info/refs"); err == nil {
		t.Error("a redirect from https to http is followed")
	}
}

func TestErrorsOfRequestsAreShort(t *testing.T) {
	t.Parallel()
	words := errors.New("malformed HTTP response \"\x1b[2J" + strings.Repeat("x", 5000) + "\"")
	err := classify(context.Background(), &url.Error{Op: "Get", URL: "https://host/app?token=secret", Err: words})
	text := fmt.Sprint(err)
	if CodeOf(err) != CodeNetwork || strings.Contains(text, "secret") || strings.Contains(text, "\x1b") || len(text) > 400 {
		t.Errorf("got error of code %q: %s", CodeOf(err), text)
	}
	if !errors.Is(err, words) {
		t.Error("the cause is lost")
	}
}

// TestAnswerThatIsNoHTTP sees the same with a server.
func TestAnswerThatIsNoHTTP(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = http.ReadRequest(newPackets(conn).r)
		_, _ = io.WriteString(conn, "\x1b[31m"+strings.Repeat("no HTTP ", 400)+"\r\n\r\n")
		_ = conn.Close()
	}()
	t.Cleanup(func() { _ = listener.Close(); <-served })
	c, err := New(Options{URL: &url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/app", RawQuery: "token=secret"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Refs(t.Context(), []string{"refs/heads/main"})
	text := fmt.Sprint(err)
	if CodeOf(err) != CodeNetwork || strings.Contains(text, "secret") || strings.Contains(text, "\x1b") || len(text) > 400 {
		t.Errorf("got error of code %q: %s", CodeOf(err), text)
	}
}

func mustURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestSelection: however the prefixes overlap, the same refs are picked as by comparing
// each with each.
func TestSelection(t *testing.T) {
	t.Parallel()
	words := []string{"", "a", "a/", "a/b", "a/b/c", "a-", "a-b", "ab", "b", "b/c", "refs/heads/main", "refs/heads/main-2", "refs/tags/"}
	for set := range 1 << len(words) {
		var prefixes []string
		for i, word := range words {
			if set>>i&1 == 1 {
				prefixes = append([]string{word}, prefixes...)
			}
		}
		s := newSelection(prefixes)
		for _, word := range words {
			for _, name := range []string{word, word + "x", word + "/x", word + "-"} {
				want := false
				for _, p := range prefixes {
					want = want || strings.HasPrefix(name, p)
				}
				if got := s.has(name); got != want {
					t.Fatalf("%q with one of %q: %v, want %v", name, prefixes, got, want)
				}
			}
		}
	}
}

func TestPrefixesThatNoRequestCarries(t *testing.T) {
	t.Parallel()
	c, err := New(Options{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1", Path: "/app"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"refs/heads/" + strings.Repeat("x", LongestRef), "refs/heads/a\n0000"} {
		if _, err := c.Refs(t.Context(), []string{prefix}); CodeOf(err) != CodeUnsupported || len(err.Error()) > 1000 {
			t.Errorf("%.40q: %v", prefix, err)
		}
	}
}

// TestRefsAreNotKept: of what a server of version 0 lists with each greeting, nothing
// stays but what was asked for, and that with whoever asked.
func TestRefsAreNotKept(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		m := &message{}
		m.line("%s", "# service=git-upload-pack")
		m.flush()
		m.line("%s refs/heads/main\x00multi_ack", someID)
		for i := range 20_000 {
			m.line("%s refs/pull/%d/head-%s", someID, i, strings.Repeat("x", 100))
		}
		m.flush()
		_, _ = w.Write(m.Bytes())
	}))
	defer server.Close()
	u := mustURL(t, server.URL+"/app")
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var clients []*Client
	var answers [][]Ref
	before := heap()
	for range 10 {
		c, err := New(Options{URL: u})
		if err != nil {
			t.Fatal(err)
		}
		refs, err := c.Refs(t.Context(), []string{"refs/heads/", "refs/pull/7/"})
		if err != nil || len(refs) != 2 {
			t.Fatalf("%d refs, error %v", len(refs), err)
		}
		if f, err := c.begin(t.Context(), nil); err != nil {
			t.Fatal(err)
		} else {
			f.end()
		}
		clients, answers = append(clients, c), append(answers, refs)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d repositories hold %d MiB", len(clients), grown>>20)
	}
	runtime.KeepAlive(clients)
	runtime.KeepAlive(answers)
}
