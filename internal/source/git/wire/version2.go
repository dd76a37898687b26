package wire

import (
	"context"
)

// readVersion2 reads the capabilities behind the line "version 2".
func (c *capabilities) readVersion2(p *packets) error {
	for {
		line, err := p.next()
		if err != nil {
			return err
		}
		if line.kind != dataPacket {
			break
		}
		if err := c.add(line.text()); err != nil {
			return err
		}
	}
	if !c.has("ls-refs") || !c.has("fetch") {
		return &Error{Code: CodeUnsupported, Text: "the server does not offer fetching"}
	}
	return nil
}

// command begins a request of version 2.
func (c *capabilities) command(name string) *message {
	m := &message{}
	m.line("command=%s", name)
	if c.has("agent") {
		m.line("agent=%s", agent)
	}
	if c.has("object-format") {
		m.line("object-format=sha1")
	}
	m.delimiter()
	return m
}

// agent is what the client calls itself.
const agent = "plumb"

// lsRefs asks for refs by prefix.
func (c *Client) lsRefs(ctx context.Context, s session, caps *capabilities, prefixes []string) ([]Ref, error) {
	m := caps.command("ls-refs")
	m.line("peel")
	for _, prefix := range prefixes {
		m.line("ref-prefix %s", prefix)
	}
	m.flush()
	body, err := s.request(ctx, m.Bytes())
	if err != nil {
		return nil, classify(ctx, err)
	}
	// It may list more than was asked for.
	listed := &harvest{limits: c.limits, wanted: newSelection(prefixes)}
	if err = firstError(listed.read(newPackets(body)), body.Close()); err != nil {
		return nil, classify(ctx, err)
	}
	return listed.refs, nil
}

// run2 sends a fetch request and hands on the pack in its answer. An answer
// without a pack is errNoPack.
func (f *fetch) run2(ctx context.Context, o order) (err error) {
	m := f.caps.command("fetch")
	m.line("thin-pack")
	m.line("no-progress")
	m.line("ofs-delta")
	for _, id := range o.wants {
		m.line("want %s", id)
	}
	for _, id := range o.shallow {
		m.line("shallow %s", id)
	}
	if o.deepen > 0 {
		m.line("deepen %d", o.deepen)
	}
	if o.filter != "" {
		m.line("filter %s", o.filter)
	}
	for _, id := range o.have {
		m.line("have %s", id)
	}
	if !o.probe {
		m.line("done")
	}
	m.flush()
	body, err := f.session.request(ctx, m.Bytes())
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, body.Close()) }()
	p := newPackets(body)
	for {
		line, err := p.next()
		if err != nil {
			return err
		}
		switch {
		case line.kind == delimiterPacket:
		case line.kind != dataPacket:
			return errNoPack
		case line.text() == "packfile":
			return f.receivePack(nil, p, true)
		}
		// The lines of other sections need no look: what is common shows by
		// the pack, and a shallow commit is one whose parents are missing.
	}
}
