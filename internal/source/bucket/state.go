package bucket

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

const stateVersion = 1

// A state is a view as it is written to disk, or what fetches brought for it that failed: one
// file, which is renamed into place. It is JSON:
//
//	{"version": 1, "revision": …, "objects": [entries in the order of their keys], "ignore": an entry}
//
// It is written and read an entry at a time: there may be 100,000, with long keys.

// state is what a state says beside its entries.
type state struct {
	revision string
	// ignore is the .sourceignore file, which is none of the objects.
	ignore *entry
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

// scan reads a state and gives its entries.
func scan(in io.Reader, each func(entry) error) (state, error) {
	decoder := json.NewDecoder(bufio.NewReaderSize(io.LimitReader(in, mostState), 64<<10))
	var s state
	version := 0
	if err := sign(decoder, '{'); err != nil {
		return s, err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return s, err
		}
		switch key {
		case "version":
			err = decoder.Decode(&version)
		case "revision":
			err = decoder.Decode(&s.revision)
		case "objects":
			if version == stateVersion {
				err = scanObjects(decoder, each)
			} else {
				err = fmt.Errorf("state of version %d", version)
			}
		case "ignore":
			s.ignore, err = scanIgnore(decoder)
		default:
			err = fmt.Errorf("%q is unknown", key)
		}
		if err != nil {
			return s, err
		}
	}
	if version != stateVersion {
		return s, fmt.Errorf("state of version %d", version)
	}
	return s, sign(decoder, '}')
}

func sign(decoder *json.Decoder, want json.Delim) error {
	token, err := decoder.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%q is missing", want.String())
	}
	return err
}

func scanObjects(decoder *json.Decoder, each func(entry) error) error {
	token, err := decoder.Token()
	if err != nil || token == nil {
		return err
	}
	if token != json.Delim('[') {
		return errors.New("the objects are no list")
	}
	last := ""
	for decoder.More() {
		var item stateItem
		if err := decoder.Decode(&item); err != nil {
			return err
		}
		e, err := item.entry()
		if err != nil {
			return err
		}
		if e.key <= last {
			return fmt.Errorf("%q is not in order", e.key)
		}
		last = e.key
		if err := each(e); err != nil {
			return err
		}
	}
	return sign(decoder, ']')
}

func scanIgnore(decoder *json.Decoder) (*entry, error) {
	var item *stateItem
	if err := decoder.Decode(&item); err != nil || item == nil {
		return nil, err
	}
	e, err := item.entry()
	return &e, err
}

// writeState writes a state.
func writeState(to io.Writer, revision string, entries []entry, ignore *entry) error {
	out := bufio.NewWriterSize(to, 64<<10)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	put := func(before string, value any) error {
		_, err := out.WriteString(before)
		if err == nil && value != nil {
			err = encoder.Encode(value)
		}
		return err
	}
	if err := put(fmt.Sprintf(`{"version":%d,"revision":`, stateVersion), revision); err != nil {
		return err
	}
	before := `,"objects":[`
	for _, e := range entries {
		if err := put(before, itemOf(e)); err != nil {
			return err
		}
		before = ","
	}
	if len(entries) == 0 {
		if err := put(before, nil); err != nil {
			return err
		}
	}
	if err := put("]", nil); err != nil {
		return err
	}
	if ignore != nil {
		if err := put(`,"ignore":`, itemOf(*ignore)); err != nil {
			return err
		}
	}
	if err := put("}", nil); err != nil {
		return err
	}
	return out.Flush()
}

// writeStateFile writes a state to a new file, and gives what it takes on the disk. It is
// counted as contents are.
func writeStateFile(ctx context.Context, dir *os.Root, name, revision string, entries []entry, ignore *entry) (size int64, err error) {
	file, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := writeState(artifact.CountedWriter(ctx, file), revision, entries, ignore); err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return artifact.OnDisk(info.Size()), artifact.Filled(ctx, info.Size())
}

// diskSize is about what a tree takes on the disk, with a state of a size.
func diskSize(entries []entry, state int64) int64 {
	for _, e := range entries {
		state += artifact.OnDisk(e.size)
	}
	return state
}

// scanFile reads a state of a folder.
func scanFile(dir *os.Root, name string, each func(entry) error) (state, error) {
	file, err := dir.Open(name)
	if err != nil {
		return state{}, err
	}
	defer file.Close()
	return scan(file, each)
}

// there tells whether a content is there, as far as its length tells.
func there(dir *os.Root, e entry) bool {
	info, err := dir.Stat(e.sum.file())
	return err == nil && info.Mode().IsRegular() && info.Size() == e.size
}

// restored is a view as a process before has left it.
type restored struct {
	current bool // whether there is a tree, of the revision and so many bytes
	partial bool // whether there is what fetches brought that failed
	ignore  *entry

	revision string
	bytes    int64 // see tree.bytes
}

// read takes the state over that a process before has left, as far as its contents are there.
// The error is of the disk.
func (v *restored) read(dir *os.Root, view string) error {
	name, partial := viewPrefix+view, partialPrefix+view
	complete, bytes := true, int64(0)
	s, err := scanFile(dir, name, func(e entry) error {
		complete = complete && there(dir, e)
		bytes += artifact.OnDisk(e.size)
		return nil
	})
	if err != nil { // it is as good as missing
		return dir.RemoveAll(name)
	}
	if s.ignore != nil && there(dir, *s.ignore) {
		v.ignore = s.ignore
	}
	if complete {
		info, err := dir.Stat(name)
		if err != nil {
			return err
		}
		v.current, v.revision, v.bytes = true, s.revision, bytes+artifact.OnDisk(info.Size())
		return nil
	}
	var entries []entry
	take := func(e entry) error {
		if there(dir, e) {
			entries = append(entries, e)
		}
		return nil
	}
	if _, err := scanFile(dir, name, take); err != nil {
		return err
	}
	if v.partial {
		if _, err := scanFile(dir, partial, take); err != nil {
			return err
		}
		slices.SortStableFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		entries = slices.CompactFunc(entries, func(a, b entry) bool { return a.key == b.key })
	}
	incoming := path.Join(incomingFolder, "restored") // no other writes before the folder is open
	// It is for nobody that is known, and takes no more than what it stands for.
	if _, err := writeStateFile(context.Background(), dir, incoming, "", entries, nil); err != nil {
		return err
	}
	if err := dir.Rename(incoming, partial); err != nil {
		return err
	}
	v.partial = true
	return dir.Remove(name)
}

// readPartial takes over what fetches brought that failed.
func (v *restored) readPartial(dir *os.Root, name string) error {
	if _, err := scanFile(dir, name, func(e entry) error {
		if !there(dir, e) {
			return errors.New("a content is missing")
		}
		return nil
	}); err != nil {
		return dir.RemoveAll(name)
	}
	v.partial = true
	return nil
}
