package wire

import (
	"context"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// readVersion0 reads the refs of a greeting, of which the first line, already
// read, carries the capabilities.
func (c *capabilities) readVersion0(line packet, p *packets, limits Limits) error {
	count := tally{limits: limits}
	for first := true; line.kind == dataPacket; first = false {
		text := line.text()
		if first {
			var names string
			text, names, _ = strings.Cut(text, "\x00")
			for _, word := range strings.Fields(names) {
				if err := c.add(word); err != nil {
					return err
				}
			}
		}
		if err := c.addRef(text); err != nil {
			return err
		}
		if err := count.line(text, len(c.refs)); err != nil {
			return err
		}
		var err error
		if line, err = p.next(); err != nil {
			return err
		}
	}
	return nil
}

func (c *capabilities) addRef(text string) error {
	if strings.HasPrefix(text, "shallow ") {
		return nil
	}
	ref, err := parseRef(text)
	if err != nil {
		return err
	}
	if name, ok := strings.CutSuffix(ref.Name, "^{}"); ok {
		// The line after a tag: what it stands for. An empty repository has
		// one without a tag before it.
		if n := len(c.refs); n > 0 && c.refs[n-1].Name == name {
			c.refs[n-1].Peeled = ref.ID
		}
		return nil
	}
	c.refs = append(c.refs, ref)
	return nil
}

// selection are prefixes in order, none of which is the beginning of another one.
type selection []string

func newSelection(prefixes []string) selection {
	var s selection
	for _, p := range slices.Sorted(slices.Values(prefixes)) {
		if n := len(s); n == 0 || !strings.HasPrefix(p, s[n-1]) {
			s = append(s, p)
		}
	}
	return s
}

// has tells whether a name begins with one of the prefixes. Of those that are not
// behind it in order, only the last one can be its beginning.
func (s selection) has(name string) bool {
	i, found := slices.BinarySearch(s, name)
	return found || i > 0 && strings.HasPrefix(name, s[i-1])
}

// selectRefs picks the refs that begin with one of the prefixes: a server of
// version 0 lists all, and one of version 2 may list more than was asked for.
func selectRefs(refs []Ref, prefixes []string) []Ref {
	var picked []Ref
	wanted := newSelection(prefixes)
	for _, ref := range refs {
		if wanted.has(ref.Name) {
			picked = append(picked, ref)
		}
	}
	return picked
}

// start is the request up to the line behind which the haves follow.
func (f *fetch) start(o order) *message {
	words := []string{"agent=" + agent}
	for _, name := range []string{"multi_ack_detailed", "side-band-64k", "thin-pack", "ofs-delta", "no-progress"} {
		if f.caps.has(name) {
			words = append(words, name)
		}
	}
	if o.filter != "" {
		words = append(words, "filter")
	}
	m := &message{}
	m.line("want %s %s", o.wants[0], strings.Join(words, " "))
	for _, id := range o.shallow {
		m.line("shallow %s", id)
	}
	if o.deepen > 0 {
		m.line("deepen %d", o.deepen)
	}
	if o.filter != "" {
		m.line("filter %s", o.filter)
	}
	m.flush()
	for _, id := range o.have {
		m.line("have %s", id)
	}
	return m
}

// probe0 asks whether the want descends from what we have.
func (f *fetch) probe0(ctx context.Context, o order) (bool, error) {
	if !f.caps.has("multi_ack_detailed") {
		return false, nil
	}
	m := f.start(o)
	m.flush()
	body, err := f.session.request(ctx, m.Bytes())
	if err != nil {
		return false, err
	}
	defer body.Close()
	p := newPackets(body)
	ready := false
	for {
		line, err := p.next()
		if err != nil {
			return false, err
		}
		text := line.text()
		switch {
		case strings.HasPrefix(text, "ACK ") && strings.HasSuffix(text, " ready"):
			ready = true
		case text == "NAK":
			return ready, nil
		}
	}
}

// run0 sends a fetch request and hands on the pack in its answer.
func (f *fetch) run0(ctx context.Context, o order) (err error) {
	m := f.start(o)
	m.line("done")
	body, err := f.session.request(ctx, m.Bytes())
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, body.Close()) }()
	p := newPackets(body)
	for deepened := o.deepen > 0; deepened; {
		line, err := p.next()
		if err != nil {
			return err
		}
		deepened = line.kind == dataPacket
	}
	for {
		line, err := p.next()
		if err != nil {
			return err
		}
		text := line.text()
		if text == "NAK" || strings.HasPrefix(text, "ACK ") && len(text) == len("ACK ")+2*len(pack.ID{}) {
			return f.receivePack(p.r, p, f.caps.has("side-band-64k"))
		}
	}
}
