package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// operatorAgent begins the user agent of every client of the operator.
const operatorAgent = "plumb/"

// auditLog is the API server's own record. An entry is written before its
// request's answer is complete, so that what a client has seen answered is there.
type auditLog struct{ path string }

// mark is a place in the log: everything behind it is newer.
type mark int64

// now is the present end of the log: the end of its last whole line, as a line may
// be there in part while it is written.
func (l *auditLog) now() (mark, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	const step = 64 << 10
	for end > 0 {
		tail := make([]byte, min(end, step))
		if _, err := file.ReadAt(tail, end-int64(len(tail))); err != nil {
			return 0, err
		}
		end -= int64(len(tail))
		if i := bytes.LastIndexByte(tail, '\n'); i >= 0 {
			return mark(end + int64(i) + 1), nil
		}
	}
	return 0, nil
}

// since counts the operator's requests behind a mark, and returns the place that
// it has read to.
func (l *auditLog) since(from mark) (tally, mark, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return tally{}, from, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.NewSectionReader(file, int64(from), 1<<62))
	if err != nil {
		return tally{}, from, err
	}
	var t tally
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		from += mark(len(line))
		if !bytes.Contains(line, []byte(`"userAgent":"`+operatorAgent)) {
			continue
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return tally{}, from, fmt.Errorf("audit log %q: %w", l.path, err)
		}
		t.count(e)
	}
	return t, from, nil
}

// entry is a line of the log.
type entry struct {
	Stage      string
	Verb       string
	RequestURI string
	UserAgent  string
	ObjectRef  *struct {
		APIGroup, Resource, Subresource string
	}
	ResponseStatus struct{ Code int }
}

// tally counts requests by class.
type tally struct {
	Watches      int `json:"watches"`
	Lease        int `json:"lease"`
	Discovery    int `json:"discovery"`
	Gets         int `json:"gets"`
	Lists        int `json:"lists"`
	DryRuns      int `json:"dryRuns"`
	Applies      int `json:"applies"`
	StatusWrites int `json:"statusWrites"`
	Events       int `json:"events"`
	Deletes      int `json:"deletes"`
	OtherWrites  int `json:"otherWrites"`
	Refused      int `json:"refused"` // of those above, answers of 400 and more
	// FirstWrites are the first few writes, to see what they were.
	FirstWrites []string `json:"firstWrites,omitempty"`
}

// firstWrites bounds tally.FirstWrites.
const firstWrites = 4

// count adds an entry. A watch is counted when it starts, or when it is refused;
// everything else when it is answered.
func (t *tally) count(e entry) {
	if !strings.HasPrefix(e.UserAgent, operatorAgent) {
		return
	}
	refused := e.ResponseStatus.Code >= 400
	if e.Verb == "watch" {
		if e.Stage == "ResponseStarted" || refused {
			t.Watches++
		}
		return
	}
	if e.Stage == "ResponseStarted" {
		return
	}
	if refused {
		t.Refused++
	}
	before := t.writes()
	*t.class(e)++
	if t.writes() > before && len(t.FirstWrites) < firstWrites {
		path, _, _ := strings.Cut(e.RequestURI, "?")
		t.FirstWrites = append(t.FirstWrites, e.Verb+" "+path)
	}
}

// class is the counter that an entry other than a watch belongs to.
func (t *tally) class(e entry) *int {
	if e.ObjectRef == nil {
		return &t.Discovery
	}
	switch {
	case e.ObjectRef.Resource == "leases":
		return &t.Lease
	case e.ObjectRef.Resource == "events" && e.Verb != "get" && e.Verb != "list":
		return &t.Events
	case e.Verb == "get":
		return &t.Gets
	case e.Verb == "list":
		return &t.Lists
	case strings.Contains(e.RequestURI, "dryRun=All"):
		return &t.DryRuns
	case e.ObjectRef.Subresource == "status":
		return &t.StatusWrites
	case e.Verb == "delete" || e.Verb == "deletecollection":
		return &t.Deletes
	case e.Verb == "patch" && strings.Contains(e.RequestURI, "fieldManager="+applyManager):
		return &t.Applies
	default:
		return &t.OtherWrites
	}
}

// requests are all beside watches and the lease.
func (t tally) requests() int { return t.beside() + t.StatusWrites + t.Events }

// beside are the requests beside watches, the lease, status writes and events.
func (t tally) beside() int { return t.Discovery + t.Gets + t.Lists + t.DryRuns + t.dataWrites() }

// writes are the requests that may have changed something.
func (t tally) writes() int { return t.dataWrites() + t.StatusWrites + t.Events }

func (t tally) dataWrites() int { return t.Applies + t.Deletes + t.OtherWrites }

// add is the sum of two tallies.
func (t tally) add(o tally) tally {
	first := slices.Concat(t.FirstWrites, o.FirstWrites)
	return tally{
		FirstWrites: first[:min(len(first), firstWrites)],
		Watches:     t.Watches + o.Watches, Lease: t.Lease + o.Lease, Discovery: t.Discovery + o.Discovery,
		Gets: t.Gets + o.Gets, Lists: t.Lists + o.Lists, DryRuns: t.DryRuns + o.DryRuns,
		Applies: t.Applies + o.Applies, StatusWrites: t.StatusWrites + o.StatusWrites, Events: t.Events + o.Events,
		Deletes: t.Deletes + o.Deletes, OtherWrites: t.OtherWrites + o.OtherWrites, Refused: t.Refused + o.Refused,
	}
}

// String lists the classes that have any.
func (t tally) String() string {
	var parts []string
	for _, class := range []struct {
		name  string
		count int
	}{
		{"watches", t.Watches}, {"lease", t.Lease}, {"discovery", t.Discovery}, {"gets", t.Gets}, {"lists", t.Lists},
		{"dry-runs", t.DryRuns}, {"applies", t.Applies}, {"status writes", t.StatusWrites}, {"events", t.Events},
		{"deletes", t.Deletes}, {"other writes", t.OtherWrites}, {"refused", t.Refused},
	} {
		if class.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", class.count, class.name))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// describe lists the classes and the first writes.
func (t tally) describe() string {
	if len(t.FirstWrites) == 0 {
		return t.String()
	}
	return t.String() + " (" + strings.Join(t.FirstWrites, ", ") + ")"
}
