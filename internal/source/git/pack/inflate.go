package pack

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"sync"
)

// inflater is a zlib reader with its input buffer, used again and again.
type inflater struct {
	buffer *bufio.Reader
	zlib   io.ReadCloser
}

// inflaters is shared by all packs: a reader weighs 40 KB and holds no state
// between uses.
var inflaters = sync.Pool{New: func() any { return &inflater{buffer: bufio.NewReaderSize(nil, 4096)} }}

// newInflater starts reading a zlib stream. It has to be given back.
func newInflater(r io.Reader) (*inflater, error) {
	f := inflaters.Get().(*inflater)
	if _, ok := r.(io.ByteReader); !ok {
		f.buffer.Reset(r)
		r = f.buffer
	}
	var err error
	if f.zlib == nil {
		f.zlib, err = zlib.NewReader(r)
	} else {
		err = f.zlib.(zlib.Resetter).Reset(r, nil)
	}
	if err != nil {
		f.release()
		return nil, inflateError(err)
	}
	return f, nil
}

func (f *inflater) Read(p []byte) (int, error) {
	n, err := f.zlib.Read(p)
	return n, inflateError(err)
}

func (f *inflater) release() {
	f.buffer.Reset(nil)
	inflaters.Put(f)
}

// inflateError marks what the zlib reader found wrong with the data; faults of
// the reader below it pass unchanged.
func inflateError(err error) error {
	var flaw flate.CorruptInputError
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // the end is never wrapped here
		return err
	case errors.Is(err, zlib.ErrChecksum), errors.Is(err, zlib.ErrDictionary), errors.Is(err, zlib.ErrHeader), errors.As(err, &flaw):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// trustedSize is how much memory is set aside on the word of a header alone.
const trustedSize = 1 << 20

// readAll reads exactly size bytes, and the end of the stream after them.
func (f *inflater) readAll(size int64) ([]byte, error) {
	data := make([]byte, min(size, trustedSize))
	for read := 0; ; {
		n, err := io.ReadFull(f, data[read:])
		if err != nil {
			return nil, shortError(err, size)
		}
		if read += n; int64(read) == size {
			return data, f.end(size)
		}
		// It never grows beyond what there is to read.
		grown := make([]byte, min(size, 4*int64(read)))
		copy(grown, data)
		data = grown
	}
}

// end makes sure that nothing follows, and by that lets zlib check its sum.
func (f *inflater) end(size int64) error {
	var one [1]byte
	n, err := f.Read(one[:])
	if n > 0 {
		return shortError(io.EOF, size)
	}
	if err == io.EOF { //nolint:errorlint // the end is never wrapped here
		return nil
	}
	return err
}

func shortError(err error, size int64) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || err == io.ErrUnexpectedEOF { //nolint:errorlint // as made by io.ReadFull
		return fmt.Errorf("%w: object does not have the %d bytes that it should", ErrCorrupt, size)
	}
	return err
}
