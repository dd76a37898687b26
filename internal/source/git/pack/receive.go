package pack

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"github.com/pjbgf/sha1cd"
)

// Receive reads a pack from a stream, checks and indexes it, and leaves it in
// the folder under the name. Bases of thin deltas are taken from older, which
// may be nil. On an error nothing is left behind. The stream is read to the end
// of the pack and not further. A pack without objects gives nil.
func Receive(ctx context.Context, r io.Reader, dir *os.Root, name string, serial uint64, older *Set, limits Limits) (*Pack, error) {
	file, err := dir.OpenFile(name+packEnding, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("receive pack: %w", err)
	}
	p := &Pack{Name: name, serial: serial, file: file}
	err = p.receive(ctx, r, dir, older, limits)
	if err == nil && p.Len() > 0 {
		return p, nil
	}
	err = errors.Join(err, p.close(), Remove(dir, name))
	if err != nil {
		return nil, fmt.Errorf("receive pack: %w", err)
	}
	return nil, nil
}

func (p *Pack) receive(ctx context.Context, r io.Reader, dir *os.Root, older *Set, limits Limits) (err error) {
	in := &intake{ctx: ctx, src: r, file: p.file, sum: sha1.New(), limit: limits.Bytes, most: limits.Made}
	list := &ledger{dir: dir, name: p.Name, most: ledgerEntries}
	defer func() { err = errors.Join(err, list.close()) }()
	if err := in.entries(limits, list); err != nil {
		return err
	}
	p.Made = in.made
	if p.Size, err = in.finish(); err != nil {
		return err
	}
	// All is there: from here on nobody waits for the server.
	return limits.Slots.Index(ctx, p.Size, list.count, limits, func(ctx context.Context, limits Limits) error {
		entries, err := list.all()
		if err != nil {
			return err
		}
		x := &indexer{ctx: ctx, pack: p, entries: entries, older: older.Within(limits), limits: limits}
		slots, err := x.slots()
		if err != nil {
			return err
		}
		p.index, err = makeIndex(dir, p.Name, slots, in.trailer)
		return err
	})
}

// received is an entry of a pack that came in.
type received struct {
	offset int64
	dataAt int64
	size   int64
	id     ID // of the object once it is known
	base   ID // of a delta that names its base
	baseAt int64
	crc    uint32
	kind   Kind
	// depth is the number of deltas to the base within the pack.
	depth int32
}

// intake copies a stream to a file and inflates what passes.
type intake struct {
	ctx   context.Context
	src   io.Reader
	file  *os.File
	sum   hash.Hash
	limit int64
	// made is how many bytes were inflated, of which there may be so many at most.
	made, most int64

	buffer [32 << 10]byte
	// The bytes from done to next are consumed but neither summed nor written;
	// those from next to end are not consumed.
	done, next, end int
	crc             uint32
	written         int64 // length of the stream up to done
	trailer         ID
}

func (in *intake) offset() int64 { return in.written + int64(in.next-in.done) }

// flush sums and writes what is consumed.
func (in *intake) flush() error {
	passed := in.buffer[in.done:in.next]
	in.crc = crc32.Update(in.crc, crc32.IEEETable, passed)
	in.sum.Write(passed)
	if _, err := in.file.Write(passed); err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	in.written += int64(len(passed))
	in.done = in.next
	return nil
}

func (in *intake) fill() error {
	if err := in.flush(); err != nil {
		return err
	}
	if err := in.ctx.Err(); err != nil {
		return err
	}
	if in.limit > 0 && in.written > in.limit {
		return fmt.Errorf("%w: pack of more than %d bytes", ErrTooLarge, in.limit)
	}
	in.done, in.next, in.end = 0, 0, 0
	for range 100 {
		n, err := in.src.Read(in.buffer[:])
		if n > 0 {
			in.end = n
			return nil
		}
		if err == io.EOF { //nolint:errorlint // readers return the end itself
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// ReadByte consumes a byte.
func (in *intake) ReadByte() (byte, error) {
	if in.next == in.end {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	in.next++
	return in.buffer[in.next-1], nil
}

// Read consumes what is at hand.
func (in *intake) Read(p []byte) (int, error) {
	if in.next == in.end {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buffer[in.next:in.end])
	in.next += n
	return n, nil
}

// entries lists all objects. Those that are not deltas get their name.
func (in *intake) entries(limits Limits, list *ledger) error {
	var head [headerSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	if !bytes.HasPrefix(head[:], []byte("PACK")) {
		return fmt.Errorf("%w: not a pack", ErrCorrupt)
	}
	if version := binary.BigEndian.Uint32(head[4:]); version != 2 && version != 3 {
		return fmt.Errorf("%w: version %d", ErrCorrupt, version)
	}
	count := binary.BigEndian.Uint32(head[8:])
	if limits.Objects > 0 && int64(count) > int64(limits.Objects) {
		return fmt.Errorf("%w: pack of %d objects, at most %d are allowed", ErrTooLarge, count, limits.Objects)
	}
	if err := in.flush(); err != nil {
		return err
	}
	name := sha1cd.New()
	for range count {
		e, err := in.entry(name)
		if err != nil {
			return err
		}
		if err := list.add(e); err != nil {
			return err
		}
	}
	return nil
}

func (in *intake) entry(name hash.Hash) (received, error) {
	offset := in.offset()
	in.crc = 0
	head, err := readEntry(in, offset)
	if err != nil {
		return received{}, err
	}
	// Before anything is inflated: it takes a processor's time, which nobody waited for.
	if in.made += head.size; in.most > 0 && in.made > in.most {
		return received{}, fmt.Errorf("%w: the objects of a pack have more than %d bytes when they are inflated", ErrTooLarge, in.most)
	}
	e := received{
		offset: offset, dataAt: in.offset(), size: head.size,
		kind: head.kind, base: head.baseID, baseAt: head.baseOffset,
	}
	f, err := newInflater(in)
	if err != nil {
		return received{}, err
	}
	defer f.release()
	to := io.Discard
	if head.kind.isObject() {
		name.Reset()
		name.Write(header(head.kind, head.size))
		to = name
	}
	if _, err := io.CopyN(to, f, head.size); err != nil {
		if err == io.EOF { //nolint:errorlint // the end of the object, not of the stream
			return received{}, fmt.Errorf("%w: object does not have the %d bytes that it should", ErrCorrupt, head.size)
		}
		return received{}, err
	}
	if err := f.end(head.size); err != nil {
		return received{}, err
	}
	if head.kind.isObject() {
		e.id = ID(name.Sum(nil))
	}
	if err := in.flush(); err != nil {
		return received{}, err
	}
	e.crc = in.crc
	return e, nil
}

// finish checks the sum at the end of the pack and gives the pack's length.
func (in *intake) finish() (int64, error) {
	want := ID(in.sum.Sum(nil))
	if _, err := io.ReadFull(in, in.trailer[:]); err != nil {
		return 0, err
	}
	if in.trailer != want {
		return 0, fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	return in.offset(), in.flush()
}
