// Package wire speaks Git's protocol as a client that only reads: it lists refs
// and fetches packs, over HTTP and SSH, in protocol version 2 and, where a
// server does not know that, version 0.
//
// It exists beside go-git because of three things that decide what a poll and a
// fetch cost: refs are asked for by prefix and with the capabilities of the
// last answer, so that an unchanged remote costs one small request; a commit is
// fetched without its history but as the difference to what is held, in a thin
// pack, so that a one-file commit costs a few hundred bytes and a rewritten
// branch not more; and commits can be fetched without their files, to find out
// whether one descends from another.
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

// Client talks to one remote repository with one credential. It is safe for use
// by several goroutines.
type Client struct {
	transport transport
	limits    Limits

	mu   sync.Mutex    // guards caps
	caps *capabilities // of a server of version 2; nil where they are not known
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
	size    int // bytes of names and values
}

const (
	// mostCapabilities and longestCapabilities, in bytes together, are several
	// times what any server says; they are kept as long as the Client is.
	mostCapabilities    = 100
	longestCapabilities = 64 << 10
)

// add takes a capability of the form name=value.
func (c *capabilities) add(text string) error {
	name, value, _ := strings.Cut(text, "=")
	c.size += len(text)
	c.names[name] = value
	if len(c.names) > mostCapabilities || c.size > longestCapabilities {
		return &Error{Code: CodeTooLarge, Text: fmt.Sprintf("the server names more than %d capabilities or %d bytes of them", mostCapabilities, longestCapabilities)}
	}
	return nil
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
// repository has none. A prefix is at most LongestRef long.
func (c *Client) Refs(ctx context.Context, prefixes []string) ([]Ref, error) {
	for _, prefix := range prefixes {
		if len(prefix) > LongestRef || strings.ContainsAny(prefix, "\x00\n") {
			return nil, &Error{Code: CodeUnsupported, Text: fmt.Sprintf("%s is not the beginning of a ref's name", quoteShort(prefix))}
		}
	}
	if caps, s := c.resume(); s != nil {
		refs, err := c.lsRefs(ctx, s, caps, prefixes)
		if err == nil || ctx.Err() != nil || CodeOf(err) != CodeProtocol {
			return refs, err
		}
		// The server may have become another one since.
		c.forget()
	}
	listed := &harvest{limits: c.limits, wanted: newSelection(prefixes)}
	s, caps, err := c.open(ctx, listed)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.close() }()
	if caps.version == 2 {
		return c.lsRefs(ctx, s, caps, prefixes)
	}
	return listed.refs, nil
}

func (c *Client) resume() (*capabilities, session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.caps == nil {
		return nil, nil
	}
	return c.caps, c.transport.resume()
}

func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caps = nil
}

// open begins a session. The refs of a greeting of version 0 go to listed.
func (c *Client) open(ctx context.Context, listed *harvest) (session, *capabilities, error) {
	s, err := c.transport.open(ctx)
	if err != nil {
		return nil, nil, classify(ctx, err)
	}
	caps, err := readGreeting(s.greeting(), listed)
	if err != nil {
		err = errors.Join(err, s.close())
		return nil, nil, classify(ctx, err)
	}
	c.mu.Lock()
	if c.caps = nil; caps.version == 2 {
		c.caps = caps
	}
	c.mu.Unlock()
	return s, caps, nil
}

// Want is a commit, or an annotated tag, to be fetched.
type Want struct {
	ID pack.ID
	// Have are commits that are held. Of each all files are, but no parents.
	Have []pack.ID
	// History asks for the whole history of the commit too.
	History bool
	// NoFiles asks for the commit and its directories only. Of Have no files need to be
	// held then.
	NoFiles bool
}

// Fetch gets a commit with what is missing of its files and hands the pack to
// receive, which must read it to its end. The error is ErrNoFilter where files cannot
// be left out.
func (c *Client) Fetch(ctx context.Context, want Want, receive func(io.Reader) error) error {
	f, err := c.begin(ctx, receive)
	if err != nil {
		return err
	}
	defer f.end()
	deepen := 1
	if want.History || !f.canDeepen() {
		deepen = 0
	}
	o := order{wants: []pack.ID{want.ID}, have: want.Have, shallow: want.Have, deepen: deepen}
	if want.NoFiles {
		// Files are asked for by name afterwards, which only version 2 always allows.
		if f.caps.version != 2 || !f.canFilter() || !f.canDeepen() {
			return ErrNoFilter
		}
		o.filter = "blob:none"
	}
	return classify(ctx, f.run(ctx, o))
}

// Objects gets single objects by name, without what they name. The server must be one
// that Fetch could leave files out with.
func (c *Client) Objects(ctx context.Context, names []pack.ID, receive func(io.Reader) error) error {
	f, err := c.begin(ctx, receive)
	if err != nil {
		return err
	}
	defer f.end()
	if f.caps.version != 2 {
		return ErrNoFilter
	}
	return classify(ctx, f.run(ctx, order{wants: names}))
}

// ErrNoFilter is returned where the server has no partial clones.
var ErrNoFilter = errors.New("the server does not send commits without their files")

// Commits gets the commits between a commit and others, of which the whole
// history is known, up to a depth, without any files.
func (c *Client) Commits(ctx context.Context, want pack.ID, known []pack.ID, depth int, receive func(io.Reader) error) error {
	f, err := c.begin(ctx, receive)
	if err != nil {
		return err
	}
	defer f.end()
	if !f.canFilter() || !f.canDeepen() {
		return ErrNoFilter
	}
	return classify(ctx, f.run(ctx, order{wants: []pack.ID{want}, have: known, deepen: depth, filter: "tree:0"}))
}

// Descends asks whether a commit descends from another one, without fetching
// anything. In protocol version 2, servers say so already of a commit that
// descends from a parent of the other one.
func (c *Client) Descends(ctx context.Context, commit, from pack.ID) (bool, error) {
	f, err := c.begin(ctx, func(io.Reader) error { return errEnough })
	if err != nil {
		return false, err
	}
	defer f.end()
	o := order{wants: []pack.ID{commit}, have: []pack.ID{from}, shallow: []pack.ID{from}, probe: true}
	if f.caps.version != 2 {
		descends, err := f.probe0(ctx, o)
		return descends, classify(ctx, err)
	}
	switch err := f.run2(ctx, o); {
	case errors.Is(err, errEnough):
		return true, nil
	case errors.Is(err, errNoPack):
		return false, nil
	default:
		return false, classify(ctx, err)
	}
}

// errEnough ends an exchange whose pack is not wanted.
var errEnough = errors.New("enough is known")

// errNoPack is an answer without a pack.
var errNoPack error = &Error{Code: CodeProtocol, Text: "the server sent no pack"}

// order is what a request asks for.
type order struct {
	wants []pack.ID
	// have are commits that the server may build on, and shallow those of them
	// whose parents it may not.
	have, shallow []pack.ID
	// deepen is the number of commits of each line of history; 0 for all.
	deepen int
	// filter says what the server leaves out; empty for nothing.
	filter string
	// probe ends before the server sends anything, unless the want descends
	// from what we have.
	probe bool
}

// fetch is one exchange that brings a pack.
type fetch struct {
	session session
	caps    *capabilities
	receive func(io.Reader) error
}

// begin opens a session, without a greeting where none is needed.
func (c *Client) begin(ctx context.Context, receive func(io.Reader) error) (*fetch, error) {
	caps, s := c.resume()
	if s == nil {
		var err error
		if s, caps, err = c.open(ctx, &harvest{limits: c.limits}); err != nil {
			return nil, err
		}
	}
	return &fetch{session: s, caps: caps, receive: receive}, nil
}

func (f *fetch) end() { _ = f.session.close() }

func (f *fetch) canDeepen() bool {
	return f.caps.has("shallow") || f.caps.hasValue("fetch", "shallow")
}

func (f *fetch) canFilter() bool {
	return f.caps.has("filter") || f.caps.hasValue("fetch", "filter")
}

func (f *fetch) run(ctx context.Context, o order) error {
	if f.caps.version == 2 {
		return f.run2(ctx, o)
	}
	return f.run0(ctx, o)
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
func readGreeting(r io.Reader, listed *harvest) (*capabilities, error) {
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
			err = caps.readVersion0(line, p, listed)
		}
	default:
		err = caps.readVersion0(line, p, listed)
	}
	if err != nil {
		return nil, err
	}
	if format := caps.names["object-format"]; format != "" && format != "sha1" {
		return nil, &Error{Code: CodeUnsupported, Text: fmt.Sprintf("the repository names its objects by %s; only sha1 is supported", quoteShort(format))}
	}
	return caps, nil
}
