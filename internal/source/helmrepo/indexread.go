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

// readDirectory reads where the charts of an index are.
func readDirectory(in indexFile) (directory, error) {
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
	var d directory
	block := newBlock(in, at)
	if err := json.NewDecoder(io.LimitReader(block, mostDirectory)).Decode(&d); err != nil || block.drain() != nil {
		return directory{}, errDamaged
	}
	return d, nil
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
	d, err := readDirectory(in)
	if err != nil {
		return false, err
	}
	at, ok := d.find(name)
	if !ok {
		return false, nil
	}
	content := newBlock(in, at)
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
	d, err := readDirectory(in)
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
	s.now = io.MultiReader(bytes.NewReader(fmt.Appendf(nil, "%s%s: ", separator, name)), newBlock(s.in, at))
	return nil
}

// Close closes the file.
func (s *served) Close() error { return s.in.Close() }
