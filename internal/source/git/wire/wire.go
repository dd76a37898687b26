// Package wire speaks Git's protocol as a client that only reads: it lists refs
// and fetches packs, over HTTP and SSH, in protocol version 2 and, where a
// server does not know that, version 0.
//
// It exists beside go-git because of three things that decide what a poll and a
// fetch cost: refs are asked for by prefix and with the capabilities of the
// last answer, so that an unchanged remote costs one small request; packs are
// thin, so that a one-file commit costs a few hundred bytes; and the server is
// asked whether the new commit descends from the old one before anything is
// sent, so that a store without history can follow a branch as well as a
// rewritten one.
//
// No process is started and no local path is opened, whatever a URL says.
// Credentials go to the host that they were given for, and to no other one.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// Ref is a ref of a remote.
type Ref struct {
	Name string
	ID   pack.ID
	// Peeled is the object that an annotated tag stands for in the end; zero
	// for other refs.
	Peeled pack.ID
}

// Target is the commit that the ref stands for.
func (r Ref) Target() pack.ID {
	if r.Peeled.IsZero() {
		return r.ID
	}
	return r.Peeled
}

// Limits bound what a server may make us hold.
type Limits struct {
	// Refs is the largest number of refs in an answer; 0 is no limit.
	Refs int
}

// Client talks to one remote repository with one credential. It is safe for use
// by several goroutines.
type Client struct {
	transport transport
	limits    Limits

	mu   sync.Mutex // guards caps
	caps *capabilities
}

// transport reaches a repository.
type transport interface {
	// open asks for the greeting of the server: its capabilities, and in
	// version 0 its refs.
	open(ctx context.Context) (session, error)
	// resume gives a session without asking for the greeting again, for a
	// server whose capabilities are known; nil where that cannot be done.
	resume() session
	// close frees idle connections.
	close()
}

// session is one exchange with the server.
type session interface {
	// greeting is to be read to its end before the first request; nil after
	// resume.
	greeting() io.Reader
	// request sends a request and gives the answer, which must be read to its
	// end or closed before the next one.
	request(ctx context.Context, body []byte) (io.ReadCloser, error)
	// stateless tells whether the server forgets everything after each request.
	stateless() bool
	close() error
}

// capabilities are what a server says it can do.
type capabilities struct {
	version int
	names   map[string]string
	refs    []Ref // version 0 only
}

func (c *capabilities) has(name string) bool { _, ok := c.names[name]; return ok }

// hasValue tells whether a capability's list of words has one.
func (c *capabilities) hasValue(name, word string) bool {
	for _, w := range strings.Fields(c.names[name]) {
		if w == word {
			return true
		}
	}
	return false
}

// Close frees idle connections. The Client can still be used.
func (c *Client) Close() { c.transport.close() }

// Refs lists the refs whose names begin with one of the prefixes. An empty
// repository has none.
func (c *Client) Refs(ctx context.Context, prefixes []string) ([]Ref, error) {
	if caps, s := c.resume(); s != nil {
		refs, err := c.lsRefs(ctx, s, caps, prefixes)
		if err == nil || ctx.Err() != nil || CodeOf(err) != CodeProtocol {
			return refs, err
		}
		// The server may have become another one since.
		c.forget()
	}
	s, caps, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.close() }()
	if caps.version == 2 {
		return c.lsRefs(ctx, s, caps, prefixes)
	}
	return selectRefs(caps.refs, prefixes), nil
}

func (c *Client) resume() (*capabilities, session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.caps == nil || c.caps.version != 2 {
		return nil, nil
	}
	return c.caps, c.transport.resume()
}

func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caps = nil
}

func (c *Client) open(ctx context.Context) (session, *capabilities, error) {
	s, err := c.transport.open(ctx)
	if err != nil {
		return nil, nil, classify(ctx, err)
	}
	caps, err := readGreeting(s.greeting(), c.limits)
	if err != nil {
		err = errors.Join(err, s.close())
		return nil, nil, classify(ctx, err)
	}
	c.mu.Lock()
	c.caps = caps
	c.mu.Unlock()
	return s, caps, nil
}

// Want is a commit, or an annotated tag, to be fetched.
type Want struct {
	ID pack.ID
	// Old is the commit that the same ref stood for before; zero on the first
	// fetch. Everything between the two is sent.
	Old pack.ID
	// Have are commits whose trees are held whole; their parents are not.
	Have []pack.ID
}

// Answer says what a server sent.
type Answer struct {
	// Descends is set when the server says that the want descends from Old. If
	// it does not, only the commit itself was asked for, without its history.
	Descends bool
}

// Fetch gets a commit with what is missing of its tree and hands the pack to
// receive, which must read it to its end.
func (c *Client) Fetch(ctx context.Context, want Want, receive func(io.Reader) error) (Answer, error) {
	caps, s := c.resume()
	if s == nil {
		var err error
		if s, caps, err = c.open(ctx); err != nil {
			return Answer{}, err
		}
	}
	f := &fetch{client: c, session: s, caps: caps, want: want, receive: receive}
	defer func() { _ = f.session.close() }()
	var answer Answer
	var err error
	if caps.version == 2 {
		answer, err = f.version2(ctx)
	} else {
		answer, err = f.version0(ctx)
	}
	return answer, classify(ctx, err)
}

// fetch is one Fetch on its way.
type fetch struct {
	client  *Client
	session session
	caps    *capabilities
	want    Want
	receive func(io.Reader) error
}

// receivePack hands on the pack of a side-banded answer and then reads the rest.
func (f *fetch) receivePack(r io.Reader, p *packets, banded bool) error {
	var in io.Reader = r
	if banded {
		in = &sideband{packets: p}
	}
	if err := f.receive(in); err != nil {
		return err
	}
	if banded {
		// Only progress may follow; a connection that is read to its end can
		// be used again.
		_, err := io.Copy(io.Discard, io.LimitReader(in, maxPacket))
		return err
	}
	return nil
}

// readGreeting reads what a server says first.
func readGreeting(r io.Reader, limits Limits) (*capabilities, error) {
	p := newPackets(r)
	line, err := p.next()
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(line.data, []byte("# service=")) {
		// Over HTTP the greeting of version 0 stands behind this line.
		if line, err = p.next(); err == nil && line.kind == flushPacket {
			line, err = p.next()
		}
		if err != nil {
			return nil, err
		}
	}
	caps := &capabilities{names: map[string]string{}}
	switch text := line.text(); {
	case text == "version 2":
		caps.version = 2
		err = caps.readVersion2(p)
	case text == "version 1":
		if line, err = p.next(); err == nil {
			err = caps.readVersion0(line, p, limits)
		}
	default:
		err = caps.readVersion0(line, p, limits)
	}
	if err != nil {
		return nil, err
	}
	if format := caps.names["object-format"]; format != "" && format != "sha1" {
		return nil, &Error{Code: CodeUnsupported, Text: fmt.Sprintf("the repository names its objects by %s; only sha1 is supported", quoteShort(format))}
	}
	return caps, nil
}
