package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// ownAt are the servers of an operator that listens at a port of a machine with the address
// 192.0.2.7, and is known in its cluster as 10.96.0.9.
func ownAt(port int) *Own {
	own := NewOwn()
	own.interfaces = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.ParseIP("192.0.2.7"), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2001:db8::7"), Mask: net.CIDRMask(64, 128)}}, nil
	}
	own.resolve = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::ffff:10.96.0.9"), netip.MustParseAddr("2001:db8:1::9")}, nil
	}
	own.Listens(&net.TCPAddr{IP: net.IPv6unspecified, Port: port})
	own.Advertise("source-controller.flux-system.svc.cluster.local.")
	return own
}

func TestAddressesOfTheOperator(t *testing.T) {
	t.Parallel()
	policy := Policy{Own: ownAt(9090)}
	for address, refused := range map[string]bool{
		"127.0.0.1:9090": true, "127.8.9.1:9090": true, "[::1]:9090": true, "0.0.0.0:9090": true, "[::]:9090": true, "[::ffff:127.0.0.1]:9090": true,
		"[64:ff9b::7f00:1]:9090": true, "[::ffff:0:0]:9090": true, "192.0.2.7:9090": true, "[::ffff:192.0.2.7]:9090": true, "[2001:db8::7]:9090": true,
		"[2001:db8::7%eth0]:9090": true, "[2002:c000:207::1]:9090": true,
		"127.0.0.1:9091": false, "[::1]:80": false, "192.0.2.8:9090": false, "192.0.2.7:80": false, "10.0.0.1:9090": false, "[2001:db8::8]:9090": false,
		// The Service.
		"10.96.0.9:80": true, "[::ffff:10.96.0.9]:80": true, "[64:ff9b::a60:9]:80": true, "[2001:db8:1::9]:80": true, "10.96.0.9:9090": false, "10.96.0.10:80": false,
	} {
		err := policy.check(t.Context(), netip.MustParseAddrPort(address))
		if isRefused(err) != refused || !refused && err != nil {
			t.Errorf("%s: %v", address, err)
		}
		if refused && !strings.Contains(err.Error(), "the operator itself answers there") {
			t.Errorf("%s: it does not say why: %v", address, err)
		}
	}
}

func TestNamesOfTheOperator(t *testing.T) {
	t.Parallel()
	own := ownAt(9090)
	own.Advertise("artifacts.example.com:8443")
	for server, refused := range map[string]bool{
		"source-controller.flux-system.svc.cluster.local.:80": true, "source-controller.flux-system.svc.cluster.local:80": true,
		"Source-Controller.flux-system.SVC:80": true, "source-controller.flux-system:80": true, "source-controller.flux-system.:80": true, "source-controller:80": true,
		"artifacts.example.com:8443": true, "ARTIFACTS.example.com.:8443": true, "localhost:9090": true, "a.localhost.:9090": true,
		"source-controller.flux-system.svc:443": false, "source-controller.other.svc:80": false, "source-controller.flux-system.example.com:80": false,
		"artifacts.example.com:80": false, "artifacts:8443": false, "localhost:80": false,
	} {
		host, port, err := net.SplitHostPort(server)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Policy{Own: own}).CheckServer(t.Context(), host, port); isRefused(err) != refused || !refused && err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
}

// Whatever leads there: a name, a redirect, a proxy.
func TestNothingReachesTheOperator(t *testing.T) {
	t.Parallel()
	secret := newSeen(t, httptest.NewServer, fine)
	u, err := url.Parse(secret.URL)
	if err != nil {
		t.Fatal(err)
	}
	own := NewOwn()
	own.Listens(secret.Listener.Addr())
	port := u.Port()
	elsewhere := newSeen(t, httptest.NewServer, fine)
	for name, test := range map[string]struct {
		target, proxy string
		reached       bool
	}{
		"its address":                {target: "http://127.0.0.1:" + port},
		"another of its addresses":   {target: "http://[::ffff:127.0.0.1]:" + port},
		"the unspecified one":        {target: "http://0.0.0.0:" + port},
		"its name":                   {target: "http://localhost:" + port},
		"by https":                   {target: "https://127.0.0.1:" + port},
		"by a redirect":              {target: newSeen(t, httptest.NewServer, redirectTo(secret.URL+"/metrics")).URL},
		"as a proxy":                 {target: "http://git.example.com/", proxy: secret.URL},
		"as a proxy for https":       {target: "https://git.example.com/", proxy: secret.URL},
		"as a SOCKS proxy":           {target: "http://git.example.com/", proxy: "socks5://localhost:" + port},
		"through a proxy":            {target: secret.URL, proxy: elsewhere.URL},
		"another port, as by Flux":   {target: elsewhere.URL, reached: true},
		"a name, as by Flux":         {target: strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), reached: true},
		"through a proxy, elsewhere": {target: "http://git.example.com/", proxy: elsewhere.URL, reached: true},
	} {
		_, err := get(t, Options{Policy: Policy{Own: own}, Proxy: Proxy{Address: test.proxy}}, test.target)
		if isRefused(err) == test.reached || test.reached && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, via := range map[string]string{"directly": "", "through it as a proxy": secret.URL, "through it as a SOCKS proxy": "socks5://127.0.0.1:" + port} {
		dialer, err := Tunnel(Proxy{Address: via}, Policy{Own: own})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dialer.DialContext(t.Context(), "tcp", "127.0.0.1:"+port); !isRefused(err) {
			t.Errorf("a tunnel %s: %v", name, err)
		}
	}
	for _, declared := range [][]string{nil, {"127.0.0.1"}} {
		client, err := Artifacts(Policy{Own: own}, declared)
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(t, At(t.Context(), Place{Folder: "bucket/apps/web"}), client, secret.URL+"/bucket/apps/web/x"); !isRefused(err) {
			t.Errorf("an artifact, with the servers %q declared: %v", declared, err)
		}
	}
	if len(secret.headers) > 0 {
		t.Errorf("it was asked %d times", len(secret.headers))
	}
	if _, err := http.Get(secret.URL); err != nil || len(secret.headers) == 0 {
		t.Errorf("the test's server answers nobody: %v", err)
	}
}

// TestTheOperatorKnowsItself: what no address tells, such as a Service in front of it.
func TestTheOperatorKnowsItself(t *testing.T) {
	t.Parallel()
	own := NewOwn()
	server := newSeen(t, func(handler http.Handler) *httptest.Server { return httptest.NewServer(own.Refuse(handler)) }, fine)
	content := newSeen(t, httptest.NewServer, fine)
	for name, test := range map[string]struct {
		own           *Own
		target, proxy string
		refused       bool
	}{
		"itself":                   {own: own, target: server.URL + "/metrics", refused: true},
		"itself, by a redirect":    {own: own, target: newSeen(t, httptest.NewServer, redirectTo(server.URL+"/metrics")).URL, refused: true},
		"itself, as a proxy":       {own: own, target: "http://git.example.com/", proxy: server.URL, refused: true},
		"another process":          {own: NewOwn(), target: server.URL},
		"one that has no servers":  {target: server.URL},
		"what is not the operator": {own: own, target: content.URL},
	} {
		asked := len(server.headers)
		_, err := get(t, Options{Policy: Policy{Own: test.own}, Proxy: Proxy{Address: test.proxy}}, test.target)
		switch {
		case !test.refused && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.refused && (!isRefused(err) || !strings.Contains(err.Error(), "the operator itself answers there") || len(server.headers) > asked):
			t.Errorf("%s: %v, and it was asked %d times", name, err, len(server.headers)-asked)
		}
	}
	if len(server.headers) != 2 || len(content.headers) != 1 {
		t.Errorf("asked %d and %d times", len(server.headers), len(content.headers))
	}
}

func TestAddressesOfAnAdvertisedName(t *testing.T) {
	t.Parallel()
	own := ownAt(9090)
	now, asked := time.Unix(0, 0), 0
	own.now = func() time.Time { return now }
	var answer []netip.Addr
	var fails error
	own.resolve = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if asked++; host != "source-controller.flux-system.svc.cluster.local." {
			t.Errorf("asked for %q", host)
		}
		return answer, fails
	}
	policy := Policy{Own: own}
	first, second := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.2")
	broken := &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	for _, step := range []struct {
		name    string
		pass    time.Duration
		answer  []netip.Addr
		fails   error
		to      netip.Addr
		refused bool
		unknown bool
		asked   int
	}{
		{name: "nobody can say what the name's address is", fails: broken, to: first, unknown: true, asked: 1},
		{name: "that is believed for a while", pass: 4 * time.Second, answer: []netip.Addr{first}, to: second, unknown: true, asked: 1},
		{name: "it is asked again soon", pass: time.Second, answer: []netip.Addr{first}, to: first, refused: true, asked: 2},
		{name: "it is remembered", fails: broken, to: second, asked: 2},
		{name: "another port asks nobody", pass: time.Hour, to: second, asked: 2},
		{name: "the last is believed while nobody can say", pass: time.Hour, fails: broken, to: first, refused: true, asked: 3},
		{name: "that is believed for a while too", pass: 4 * time.Second, answer: []netip.Addr{second}, to: first, refused: true, asked: 3},
		{name: "it has another address", pass: time.Second, answer: []netip.Addr{second}, to: second, refused: true, asked: 4},
		{name: "it is for others now", answer: []netip.Addr{second}, to: first, asked: 4},
		{name: "the name is gone", pass: time.Hour, fails: &net.DNSError{IsNotFound: true}, to: second, asked: 5},
	} {
		now, answer, fails = now.Add(step.pass), step.answer, step.fails
		port := uint16(80)
		if strings.HasPrefix(step.name, "another port") {
			port = 81
		}
		err := policy.check(t.Context(), netip.AddrPortFrom(step.to, port))
		if isRefused(err) != step.refused || errors.Is(err, broken) != step.unknown || asked != step.asked {
			t.Errorf("%s: %v, asked %d times, want %d", step.name, err, asked, step.asked)
		}
	}
}

// TestNobodyStandsInLineForAName: while one asks for the addresses of an advertised name, the
// others wait as long as their contexts allow, and take its answer.
func TestNobodyStandsInLineForAName(t *testing.T) {
	t.Parallel()
	own := ownAt(9090)
	asked, answer, count := make(chan struct{}), make(chan struct{}), 0
	own.resolve = func(context.Context, string, string) ([]netip.Addr, error) {
		count++
		close(asked)
		<-answer
		return nil, &net.DNSError{Err: "i/o timeout", Name: "canary", IsTimeout: true, IsTemporary: true}
	}
	check := func(ctx context.Context) error {
		return Policy{Own: own}.check(ctx, netip.MustParseAddrPort("10.96.0.10:80"))
	}
	first := make(chan error, 1)
	go func() { first <- check(t.Context()) }()
	<-asked
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	second := make(chan error, 1)
	go func() { second <- check(gone) }()
	select {
	case err := <-second:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("whose context has ended: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("whose context has ended waits on")
	}
	third := make(chan error, 1)
	go func() { third <- check(t.Context()) }()
	close(answer)
	for _, err := range []error{<-first, <-third} {
		const want = `the operator's own address "source-controller.flux-system.svc.cluster.local" cannot be looked up, so that no connection is made to port 80`
		if code, text, ok := Explain(t.Context(), err); !ok || code != Network || !strings.Contains(text, want) {
			t.Errorf("%s: %s", code, text)
		}
	}
	if count != 1 {
		t.Errorf("asked %d times", count)
	}
}

// TestTheLastAddressesServeMeanwhile: while one asks, the others believe what was known last.
func TestTheLastAddressesServeMeanwhile(t *testing.T) {
	t.Parallel()
	own := ownAt(9090)
	check := func(address string) error {
		return Policy{Own: own}.check(t.Context(), netip.MustParseAddrPort(address))
	}
	if err := check("10.96.0.9:80"); !isRefused(err) {
		t.Fatalf("the Service: %v", err)
	}
	own.now = func() time.Time { return time.Now().Add(time.Hour) }
	asked, answer := make(chan struct{}), make(chan struct{})
	own.resolve = func(context.Context, string, string) ([]netip.Addr, error) {
		close(asked)
		<-answer
		return []netip.Addr{netip.MustParseAddr("10.96.0.10")}, nil
	}
	first := make(chan error, 1)
	go func() { first <- check("10.96.0.10:80") }()
	<-asked
	if err := check("10.96.0.9:80"); !isRefused(err) {
		t.Errorf("the Service, while somebody asks: %v", err)
	}
	if err := check("10.96.0.10:80"); err != nil {
		t.Errorf("another one, while somebody asks: %v", err)
	}
	close(answer)
	if err := <-first; !isRefused(err) {
		t.Errorf("the Service's new address: %v", err)
	}
}

// TestAGivenUpLookupIsNoAnswer: who gives up does not decide for the others.
func TestAGivenUpLookupIsNoAnswer(t *testing.T) {
	t.Parallel()
	own := ownAt(9090)
	resolve := own.resolve
	gone, cancel := context.WithCancel(t.Context())
	own.resolve = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		cancel()
		return nil, ctx.Err()
	}
	to := netip.MustParseAddrPort("10.96.0.10:80")
	if err := (Policy{Own: own}).check(gone, to); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up: %v", err)
	}
	own.resolve = resolve
	if err := (Policy{Own: own}).check(t.Context(), to); err != nil {
		t.Errorf("another one: %v", err)
	}
}

// Where the machine's addresses cannot be found out, what may be one is not dialed.
func TestUnknownAddressesOfTheMachine(t *testing.T) {
	t.Parallel()
	own := ownAt(9090)
	own.interfaces = func() ([]net.Addr, error) { return nil, errors.New("canary") }
	if err := (Policy{Own: own}).check(t.Context(), netip.MustParseAddrPort("192.0.2.8:9090")); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
	if err := (Policy{Own: own}).check(t.Context(), netip.MustParseAddrPort("192.0.2.8:9091")); err != nil {
		t.Errorf("another port: %v", err)
	}
}
