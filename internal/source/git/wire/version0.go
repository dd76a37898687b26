package wire

import (
	"context"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// readVersion0 reads the refs of a greeting, of which the first line, already
// read, carries the capabilities.
func (c *capabilities) readVersion0(line packet, p *packets, listed *harvest) error {
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
		if err := listed.add(text); err != nil {
			return err
		}
		var err error
		if line, err = p.next(); err != nil {
			return err
		}
	}
	return nil
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
