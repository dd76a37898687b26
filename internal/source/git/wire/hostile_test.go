package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
			_, err := readGreeting(lines(append([]string{"version 2", "ls-refs", "fetch"}, capabilities...)...), Limits{})
			return err
		}
	}
	old := func(words ...string) func() error {
		return func() error {
			_, err := readGreeting(lines(someID+" refs/heads/main\x00"+strings.Join(words, " ")), Limits{})
			return err
		}
	}
	refs := func(limit int, texts ...string) func() error {
		return func() error {
			_, err := readRefs(newPackets(lines(texts...)), Limits{Refs: limit})
			return err
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
			_, err := readRefs(newPackets(endless), Limits{})
			return err
		}, CodeTooLarge},
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
