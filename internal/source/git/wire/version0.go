package wire

import (
	"context"
	"io"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// readVersion0 reads the refs of a greeting, of which the first line, already
// read, carries the capabilities.
func (c *capabilities) readVersion0(line packet, p *packets, limits Limits) error {
	for first := true; line.kind == dataPacket; first = false {
		text := line.text()
		if first {
			var names string
			text, names, _ = strings.Cut(text, "\x00")
			for _, word := range strings.Fields(names) {
				name, value, _ := strings.Cut(word, "=")
				c.names[name] = value
			}
		}
		if err := c.addRef(text); err != nil {
			return err
		}
		if limits.Refs > 0 && len(c.refs) > limits.Refs {
			return tooManyRefs(limits)
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

// selectRefs picks the refs that begin with one of the prefixes: a server of
// version 0 lists all, and one of version 2 may list more than was asked for.
func selectRefs(refs []Ref, prefixes []string) []Ref {
	var picked []Ref
	for _, ref := range refs {
		for _, prefix := range prefixes {
			if strings.HasPrefix(ref.Name, prefix) {
				picked = append(picked, ref)
				break
			}
		}
	}
	return picked
}

// version0 fetches in version 0. Whether the want descends from the old commit
// is asked in an exchange of its own, which ends before anything is sent.
func (f *fetch) version0(ctx context.Context) (Answer, error) {
	if !f.want.Old.IsZero() && f.caps.has("multi_ack_detailed") {
		descends, err := f.probe(ctx)
		if err != nil {
			return Answer{}, err
		}
		if err := f.restart(ctx); err != nil {
			return Answer{}, err
		}
		if descends {
			m := f.begin()
			m.line("shallow %s", f.want.Old)
			m.flush()
			m.line("have %s", f.want.Old)
			m.line("done")
			return Answer{Descends: true}, f.take(ctx, m, false)
		}
	}
	deepen := f.caps.has("shallow")
	m := f.begin()
	if deepen {
		for _, id := range f.want.Have {
			m.line("shallow %s", id)
		}
		m.line("deepen 1")
	}
	m.flush()
	for _, id := range f.want.Have {
		m.line("have %s", id)
	}
	m.line("done")
	return Answer{}, f.take(ctx, m, deepen)
}

// begin is the request up to the wanted commit.
func (f *fetch) begin() *message {
	words := []string{"agent=" + agent}
	for _, name := range []string{"multi_ack_detailed", "side-band-64k", "thin-pack", "ofs-delta", "no-progress"} {
		if f.caps.has(name) {
			words = append(words, name)
		}
	}
	m := &message{}
	m.line("want %s %s", f.want.ID, strings.Join(words, " "))
	return m
}

// probe asks whether the want descends from the old commit.
func (f *fetch) probe(ctx context.Context) (bool, error) {
	m := f.begin()
	m.line("shallow %s", f.want.Old)
	m.flush()
	m.line("have %s", f.want.Old)
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

// restart begins another exchange where the server remembers the last one.
func (f *fetch) restart(ctx context.Context) error {
	if f.session.stateless() {
		return nil
	}
	if err := f.session.close(); err != nil {
		return err
	}
	s, caps, err := f.client.open(ctx)
	if err != nil {
		return err
	}
	f.session, f.caps = s, caps
	return nil
}

// take sends the last request and receives the pack.
func (f *fetch) take(ctx context.Context, m *message, deepened bool) (err error) {
	body, err := f.session.request(ctx, m.Bytes())
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, body.Close()) }()
	p := newPackets(body)
	for deepened {
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
			break
		}
	}
	return f.receivePack(io.Reader(p.r), p, f.caps.has("side-band-64k"))
}
