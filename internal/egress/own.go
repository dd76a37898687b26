package egress

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// ownHeader is the header of each request and of the answer by which the process knows
	// itself.
	ownHeader = "Plumb-Operator"
	// ownNames is how long the addresses of an advertised name are believed, ownPatience how
	// long they are looked for, and ownRetry how long it is believed that nobody can say them.
	ownNames    = 30 * time.Second
	ownPatience = 10 * time.Second
	ownRetry    = 5 * time.Second
)

// Own are the servers of the operator itself, which serve what all tenants have: a source
// that names one would show its owner what is somebody else's. It learns of them while they
// start, and is asked at each connection. What leads there by other ways, such as a Service or
// an Ingress of a tenant's, is known by a header: requests bear it, and servers refuse it.
// Its methods are safe for use by several goroutines.
type Own struct {
	now        func() time.Time
	interfaces func() ([]net.Addr, error)
	resolve    func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// mark is that of this process. It is no secret: who sends it is refused.
	mark string

	mu         sync.Mutex // guards what follows
	ports      map[uint16]bool
	advertised []*advertised
}

// advertised is a server as others know it.
type advertised struct {
	host, plain string
	port        uint16

	// looking is held while the addresses are looked for.
	looking chan struct{}

	mu        sync.Mutex // guards what follows
	addresses []netip.Addr
	until     time.Time
	failure   error // that nobody can say them, until then
}

// NewOwn knows no server yet.
func NewOwn() *Own {
	return &Own{now: time.Now, interfaces: net.InterfaceAddrs, resolve: net.DefaultResolver.LookupNetIP, mark: rand.Text(), ports: map[uint16]bool{}}
}

// Listens says that the operator listens at an address: nobody reaches its port at any
// address of this machine.
func (o *Own) Listens(at net.Addr) {
	if to, err := netip.ParseAddrPort(at.String()); err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ports[to.Port()] = true
	}
}

// Advertise says by which host or host:port others reach the operator; without a port it is
// that of HTTP.
func (o *Own) Advertise(server string) {
	host, text, err := net.SplitHostPort(server)
	if err != nil {
		host, text = strings.Trim(server, "[]"), "80"
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || host == "" {
		return // nobody reaches it
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.advertised = append(o.advertised, &advertised{host: host, plain: plainServer(host), port: uint16(port), looking: make(chan struct{}, 1)})
}

// Refuse serves a handler of the operator to all but the operator itself.
func (o *Own) Refuse(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if !slices.Contains(request.Header.Values(ownHeader), o.mark) {
			handler.ServeHTTP(w, request)
			return
		}
		w.Header().Set(ownHeader, o.mark)
		http.Error(w, "the operator does not fetch from itself", http.StatusForbidden)
	})
}

// sign gives a request with the mark of this process.
func (o *Own) sign(request *http.Request) *http.Request {
	if o == nil {
		return request
	}
	request = request.Clone(request.Context())
	request.Header.Set(ownHeader, o.mark)
	return request
}

// answered tells whether the operator itself has refused a request.
func (o *Own) answered(response *http.Response) bool {
	return o != nil && response.Header.Get(ownHeader) == o.mark
}

// at are the advertised servers with a port, and whether it is one that is listened at.
func (o *Own) at(port uint16) (servers []*advertised, listens bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.advertised {
		if a.port == port {
			servers = append(servers, a)
		}
	}
	return servers, o.ports[port]
}

// checkName refuses the names of the operator's own servers, for connections that a proxy
// makes. All others are looked at by their addresses.
func (o *Own) checkName(host string, port uint16) error {
	if o == nil {
		return nil
	}
	servers, listens := o.at(port)
	host = plainServer(host)
	if listens && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		return ownServer(host, port)
	}
	for _, a := range servers {
		if slices.Contains(a.names(), host) {
			return ownServer(host, port)
		}
	}
	return nil
}

// names are those of the server in a cluster: NAME.NAMESPACE.svc.DOMAIN can be shortened.
func (a *advertised) names() []string {
	names := []string{a.plain}
	if parts := strings.Split(a.plain, "."); len(parts) >= 3 && parts[2] == "svc" {
		service := parts[0] + "." + parts[1]
		names = append(names, parts[0], service, service+".svc", service+".svc.cluster.local")
	}
	return names
}

// check refuses addresses, in all their forms, where one of the operator's own servers is.
func (o *Own) check(ctx context.Context, all []netip.Addr, port uint16) error {
	if o == nil {
		return nil
	}
	servers, listens := o.at(port)
	if listens {
		mine, err := o.machine(all)
		if err != nil {
			return err
		}
		if mine {
			return ownServer(all[0].String(), port)
		}
	}
	for _, a := range servers {
		theirs, err := o.addressesOf(ctx, a)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(plain netip.Addr) bool { return slices.Contains(theirs, plain) }) {
			return ownServer(all[0].String(), port)
		}
	}
	return nil
}

// machine tells whether one of the addresses is this machine's.
func (o *Own) machine(all []netip.Addr) (bool, error) {
	if slices.ContainsFunc(all, func(plain netip.Addr) bool { return plain.IsLoopback() || plain.IsUnspecified() }) {
		return true, nil
	}
	interfaces, err := o.interfaces()
	if err != nil {
		return false, errors.New("the addresses of the operator's own machine cannot be found out, so that no connection is made to a port that it listens at")
	}
	for _, address := range interfaces {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && slices.Contains(all, prefix.Addr().Unmap().WithZone("")) {
			return true, nil
		}
	}
	return false, nil
}

// addressesOf are the addresses of an advertised server. While nobody can say them, those
// that were known last are believed; without any it is an error, for the address that is asked
// for may be one of them. Of those who need them one asks, and the others wait for it as long
// as their contexts allow.
func (o *Own) addressesOf(ctx context.Context, a *advertised) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(a.plain); err == nil {
		return []netip.Addr{address.Unmap().WithZone("")}, nil
	}
	last, known, err := a.known(o.now())
	if known || len(last) > 0 && len(a.looking) > 0 {
		return last, err // what was known last, while somebody asks
	}
	select {
	case a.looking <- struct{}{}:
		defer func() { <-a.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if addresses, known, err := a.known(o.now()); known {
		return addresses, err
	}
	patient, cancel := context.WithTimeout(ctx, ownPatience)
	defer cancel()
	found, err := o.resolve(patient, "ip", a.host)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // Nobody else has to believe it.
	}
	return a.learn(o.now(), found, err)
}

// known are the addresses that are believed still.
func (a *advertised) known(now time.Time) (addresses []netip.Addr, known bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addresses, now.Before(a.until), a.failure
}

// learn takes an answer, and gives what is believed from now on.
func (a *advertised) learn(now time.Time, found []netip.Addr, err error) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var dns *net.DNSError
	if err != nil && (!errors.As(err, &dns) || !dns.IsNotFound) {
		a.until = now.Add(ownRetry)
		if len(a.addresses) == 0 {
			a.failure = &unknownOwn{host: a.plain, port: a.port, cause: err}
		}
		return a.addresses, a.failure
	}
	// One that is not found has none.
	a.addresses, a.until, a.failure = nil, now.Add(ownNames), nil
	if err != nil {
		return nil, nil
	}
	for _, address := range found {
		a.addresses = append(a.addresses, address.Unmap().WithZone(""))
	}
	return a.addresses, nil
}

// unknownOwn is the error of a connection to what may be the operator itself.
type unknownOwn struct {
	host  string
	port  uint16
	cause error
}

// Error says which name is not known.
func (e *unknownOwn) Error() string {
	return fmt.Sprintf("the operator's own address %s cannot be looked up, so that no connection is made to port %d; check the DNS of the cluster, and --storage-adv-addr", Quote(e.host), e.port)
}

// Unwrap is why.
func (e *unknownOwn) Unwrap() error { return e.cause }

func ownServer(host string, port uint16) error {
	return answersItself(net.JoinHostPort(host, strconv.Itoa(int(port))))
}

func answersItself(server string) error {
	return &Refused{Text: fmt.Sprintf("connections to %s are refused; the operator itself answers there, with what others have: name the server that the content comes from", Printable(server))}
}
