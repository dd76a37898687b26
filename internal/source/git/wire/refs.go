package wire

import (
	"fmt"
	"slices"
	"strings"

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

const (
	// LongestRef is the most bytes of a ref's name.
	LongestRef = 1 << 10
	// mostListed is the most bytes of all refs of an answer.
	mostListed = 128 << 20
	// mostTaken is the most bytes of those that were asked for, which are held in memory:
	// 100,000 with 8 MiB of names.
	mostTaken = 14 << 20
	// refCost is about what a ref holds in memory beside its name.
	refCost = 64
)

// harvest takes from the refs of an answer those that are wanted, as they come in.
type harvest struct {
	limits Limits
	wanted selection
	refs   []Ref

	listed, bytes int    // of all refs, wanted or not
	taken         int    // bytes of those that are wanted
	last          string // the name of the ref before, where it was wanted
}

// read takes the refs up to a special packet.
func (h *harvest) read(p *packets) error {
	for {
		line, err := p.next()
		if err != nil || line.kind != dataPacket {
			return err
		}
		if err := h.add(line.text()); err != nil {
			return err
		}
	}
}

// add takes the ref of a line.
func (h *harvest) add(line string) error {
	if h.bytes += len(line); h.bytes > mostListed {
		return &Error{Code: CodeTooLarge, Text: fmt.Sprintf("the server lists more than %d bytes of refs", mostListed)}
	}
	if strings.HasPrefix(line, "shallow ") {
		return nil // of a repository in version 0 that is shallow itself
	}
	ref, err := parseRef(line)
	if err != nil {
		return err
	}
	if name, ok := strings.CutSuffix(ref.Name, "^{}"); ok {
		// In version 0 the line after a tag: what it stands for. An empty repository
		// has one without a tag before it.
		if n := len(h.refs); n > 0 && h.last == name {
			h.refs[n-1].Peeled = ref.ID
		}
		return nil
	}
	if h.listed++; h.limits.Refs > 0 && h.listed > h.limits.Refs {
		return &Error{Code: CodeTooLarge, Text: fmt.Sprintf("the server lists more than %d refs", h.limits.Refs)}
	}
	if h.last = ""; !h.wanted.has(ref.Name) {
		return nil
	}
	if h.taken += refCost + len(ref.Name); h.taken > mostTaken {
		return &Error{Code: CodeTooLarge, Text: fmt.Sprintf("the server lists more than %d bytes of refs with such names", mostTaken)}
	}
	// The line itself may be far longer, and is not kept.
	ref.Name = strings.Clone(ref.Name)
	h.last = ref.Name
	h.refs = append(h.refs, ref)
	return nil
}

// parseRef reads "ID NAME [peeled:ID]"; other attributes are not asked for.
func parseRef(line string) (Ref, error) {
	fields := strings.Split(line, " ")
	if len(fields) < 2 {
		return Ref{}, &Error{Code: CodeProtocol, Text: "the server lists a ref without a name"}
	}
	id, err := pack.ParseID(fields[0])
	if err != nil {
		return Ref{}, &Error{Code: CodeProtocol, Text: "the server lists a ref that is not a commit", Err: err}
	}
	if len(fields[1]) > LongestRef {
		return Ref{}, &Error{Code: CodeTooLarge, Text: fmt.Sprintf("the server lists a ref whose name has more than %d bytes", LongestRef)}
	}
	ref := Ref{Name: fields[1], ID: id}
	for _, attribute := range fields[2:] {
		if text, ok := strings.CutPrefix(attribute, "peeled:"); ok {
			if ref.Peeled, err = pack.ParseID(text); err != nil {
				return Ref{}, &Error{Code: CodeProtocol, Text: "the server lists a tag that is not a commit", Err: err}
			}
		}
	}
	return ref, nil
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
