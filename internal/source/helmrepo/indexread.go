package helmrepo

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"time"
)

// errDamaged is an index on the disk that is not what was written. It is fetched again.
var errDamaged = errors.New("the index in the data folder is damaged")

// mostDirectory bounds the directory of an index when it is unpacked, in bytes.
const mostDirectory = 64 << 20

// candidate is what is to be known of a version to choose it and to get it.
type candidate struct {
	Version string    `json:"version"`
	URLs    []string  `json:"urls"`
	Created time.Time `json:"created"`
	Digest  string    `json:"digest"`
}

// indexFile is an open file as a reader of the compact form needs it.
type indexFile interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// readDirectory reads where the charts of an index are: of all of them, or of those that are
// wanted.
func readDirectory(in indexFile, wanted func(name string) bool) (directory, error) {
	info, err := in.Stat()
	if err != nil {
		return directory{}, err
	}
	trailer := make([]byte, trailerLength)
	if _, err := in.ReadAt(trailer, info.Size()-trailerLength); info.Size() < trailerLength || err != nil {
		return directory{}, errDamaged
	}
	at := place{
		Offset: int64(binary.BigEndian.Uint64(trailer)),     //nolint:gosec // checked below
		Length: int64(binary.BigEndian.Uint64(trailer[8:])), //nolint:gosec // checked below
		Sum:    binary.BigEndian.Uint32(trailer[16:]),
	}
	if !bytes.Equal(trailer[20:], trailerMark()) || at.Offset < 0 || at.Length < 0 || at.Offset+at.Length != info.Size()-trailerLength {
		return directory{}, errDamaged
	}
	block := newBlock(in, at)
	d, err := decodeDirectory(json.NewDecoder(io.LimitReader(block, mostDirectory)), wanted)
	if err != nil || block.drain() != nil {
		return directory{}, errDamaged
	}
	return d, nil
}

// decodeDirectory decodes a directory, a place at a time.
func decodeDirectory(decoder *json.Decoder, wanted func(name string) bool) (d directory, err error) {
	if err := delimiter(decoder, '{'); err != nil {
		return d, err
	}
	for decoder.More() {
		key, err := keyOf(decoder)
		if err != nil {
			return d, err
		}
		switch key {
		case "head":
			err = decoder.Decode(&d.Head)
		case "charts":
			d.Charts, err = decodePlaces(decoder, wanted)
		default:
			err = errDamaged
		}
		if err != nil {
			return d, err
		}
	}
	return d, delimiter(decoder, '}')
}

func decodePlaces(decoder *json.Decoder, wanted func(name string) bool) (places []place, err error) {
	token, err := decoder.Token()
	if err != nil || token == nil { // null, as earlier versions wrote none
		return nil, err
	}
	if token != json.Delim('[') {
		return nil, errDamaged
	}
	for decoder.More() {
		var at place
		if err := decoder.Decode(&at); err != nil {
			return nil, err
		}
		if wanted == nil || wanted(at.Name) {
			places = append(places, at)
		}
	}
	return places, delimiter(decoder, ']')
}

// block reads what a place holds, and finds out whether it is what was written.
type block struct {
	packed  *summingReader
	content io.Reader
	want    uint32
}

func newBlock(in io.ReaderAt, at place) *block {
	packed := &summingReader{in: io.NewSectionReader(in, at.Offset, at.Length)}
	return &block{packed: packed, content: flate.NewReader(packed), want: at.Sum}
}

// Read gives bytes of the content; the last are followed by an error where they are wrong.
func (b *block) Read(p []byte) (int, error) {
	n, err := b.content.Read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) || b.drainPacked() != nil {
		return n, errDamaged
	}
	return n, err
}

func (b *block) drainPacked() error {
	if _, err := io.Copy(io.Discard, b.packed); err != nil || b.packed.sum != b.want {
		return errDamaged
	}
	return nil
}

// drain reads to the end.
func (b *block) drain() error {
	_, err := io.Copy(io.Discard, io.LimitReader(b, mostDirectory))
	return err
}

type summingReader struct {
	in  io.Reader
	sum uint32
}

// Read gives bytes and sums them.
func (s *summingReader) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	s.sum = crc32.Update(s.sum, crc32.IEEETable, p[:n])
	return n, err
}

// candidates gives the versions of a chart one after the other, newest first, and tells
// whether there is such a chart.
func candidates(in indexFile, name string, each func(candidate)) (bool, error) {
	d, err := readDirectory(in, func(other string) bool { return other == name })
	if err != nil {
		return false, err
	}
	if len(d.Charts) == 0 {
		return false, nil
	}
	content := newBlock(in, d.Charts[0])
	decoder := json.NewDecoder(content)
	if _, err := decoder.Token(); err != nil {
		return false, errDamaged
	}
	for decoder.More() {
		var c candidate
		if err := decoder.Decode(&c); err != nil {
			return false, errDamaged
		}
		each(c)
	}
	if _, err := decoder.Token(); err != nil || content.drain() != nil {
		return false, errDamaged
	}
	return true, nil
}

// openServed gives the index as it is served: all of it as JSON, in Helm's form, as Flux
// stores it.
func openServed(in indexFile) (io.ReadCloser, error) {
	d, err := readDirectory(in, nil)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	before, behind, err := d.Head.parts()
	if err != nil {
		return nil, errors.Join(errDamaged, in.Close())
	}
	s := &served{in: in, charts: d.Charts, behind: behind}
	s.now = bytes.NewReader(before)
	return s, nil
}

// served is an index that is read in the form in which it is served.
type served struct {
	in     indexFile
	charts []place
	behind []byte
	// now is what is read at the moment, and next how many charts were begun.
	now   io.Reader
	next  int
	ended bool
}

// Read gives bytes of the JSON.
func (s *served) Read(p []byte) (int, error) {
	for {
		n, err := s.now.Read(p)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if !errors.Is(err, io.EOF) {
			continue
		}
		if s.ended {
			return 0, io.EOF
		}
		if err := s.advance(); err != nil {
			return 0, err
		}
	}
}

// advance goes on to the next chart, or to the end.
func (s *served) advance() error {
	if s.next == len(s.charts) {
		s.ended = true
		if s.next > 0 {
			s.now = io.MultiReader(bytes.NewReader([]byte("\n  ")), bytes.NewReader(s.behind))
		} else {
			s.now = bytes.NewReader(s.behind)
		}
		return nil
	}
	at := s.charts[s.next]
	name, err := json.Marshal(at.Name)
	if err != nil {
		return err
	}
	separator := "\n    "
	if s.next > 0 {
		separator = ",\n    "
	}
	s.next++
	s.now = io.MultiReader(bytes.NewReader(fmt.Appendf(nil, "%s%s: ", separator, name)), &escaping{in: newBlock(s.in, at)})
	return nil
}

// Close closes the file.
func (s *served) Close() error { return s.in.Close() }

// escaping writes the signs of HTML in JSON as Helm does: as escapes. They stand in texts only.
type escaping struct {
	in   io.Reader
	rest []byte // what is still to be given
	err  error  // comes behind it
	raw  [4 << 10]byte
	made []byte
}

// Read gives bytes of the JSON.
func (e *escaping) Read(p []byte) (int, error) {
	for len(e.rest) == 0 {
		if e.err != nil {
			return 0, e.err
		}
		var n int
		n, e.err = e.in.Read(e.raw[:])
		e.made = e.made[:0]
		for _, c := range e.raw[:n] {
			switch c {
			case '<', '>', '&':
				e.made = fmt.Appendf(e.made, `\u%04x`, c)
			default:
				e.made = append(e.made, c)
			}
		}
		e.rest = e.made
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}
