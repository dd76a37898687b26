package bucket

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const stateVersion = 1

// state is a view as it is written to disk: one file, which is renamed into place.
type state struct {
	Version  int         `json:"version"`
	Revision string      `json:"revision"`
	Objects  []stateItem `json:"objects"`
	// Ignore is the .sourceignore file, which is none of the objects.
	Ignore *stateItem `json:"ignore,omitempty"`
}

// stateItem is an entry.
type stateItem struct {
	Key  string `json:"k"`
	ETag string `json:"e"`
	Sum  string `json:"s"`
	Size int64  `json:"n"`
}

func itemOf(e entry) stateItem {
	return stateItem{Key: e.key, ETag: e.etag, Sum: e.sum.String(), Size: e.size}
}

func (i stateItem) entry() (entry, error) {
	raw, err := hex.DecodeString(i.Sum)
	if err != nil || len(raw) != len(sum{}) {
		return entry{}, fmt.Errorf("%q is no sum", i.Sum)
	}
	if err := checkKey(i.Key); err != nil {
		return entry{}, err
	}
	return entry{key: i.Key, etag: i.ETag, size: i.Size, sum: sum(raw)}, nil
}

// mostState is the most bytes of a state that is read.
const mostState = 1 << 30

func readState(dir *os.Root, name string) (state, error) {
	file, err := dir.Open(name)
	if err != nil {
		return state{}, err
	}
	defer file.Close()
	return parseState(file)
}

func parseState(in io.Reader) (state, error) {
	var s state
	if err := json.NewDecoder(bufio.NewReader(io.LimitReader(in, mostState))).Decode(&s); err != nil {
		return state{}, err
	}
	if s.Version != stateVersion {
		return state{}, fmt.Errorf("state of version %d", s.Version)
	}
	last := ""
	for _, item := range s.Objects {
		if _, err := item.entry(); err != nil {
			return state{}, err
		}
		if item.Key <= last {
			return state{}, fmt.Errorf("%q is not in order", item.Key)
		}
		last = item.Key
	}
	if s.Ignore != nil {
		if _, err := s.Ignore.entry(); err != nil {
			return state{}, err
		}
	}
	return s, nil
}

// writeState writes the state of a tree to a new file.
func writeState(dir *os.Root, name string, t *tree, ignore *entry) (err error) {
	file, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	s := state{Version: stateVersion, Revision: t.revision, Objects: make([]stateItem, 0, len(t.entries))}
	for _, e := range t.entries {
		s.Objects = append(s.Objects, itemOf(e))
	}
	if ignore != nil {
		item := itemOf(*ignore)
		s.Ignore = &item
	}
	out := bufio.NewWriter(file)
	if err := json.NewEncoder(out).Encode(s); err != nil {
		return err
	}
	return out.Flush()
}

// restore takes a state over, as far as its contents are there. The caller holds the
// remote's mutex.
func (v *view) restore(s state) {
	r := v.remote
	there := func(i stateItem) (entry, bool) {
		e, err := i.entry()
		if err != nil {
			return entry{}, false
		}
		info, err := r.dir.Stat(e.sum.file())
		if err != nil || !info.Mode().IsRegular() || info.Size() != e.size {
			return entry{}, false
		}
		r.uses[e.sum]++
		return e, true
	}
	if s.Ignore != nil {
		if e, ok := there(*s.Ignore); ok {
			v.ignore = &e
		}
	}
	entries := make([]entry, 0, len(s.Objects))
	for _, item := range s.Objects {
		if e, ok := there(item); ok {
			entries = append(entries, e)
		}
	}
	if len(entries) == len(s.Objects) {
		if t, err := newTree(r, s.Revision, slices.Clip(entries)); err == nil {
			v.current = t
			return
		}
	}
	v.partial = entries
}
