package pack

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
)

// Repack writes the objects with the given names, which must not repeat, from a Set into
// one new pack that needs no other one. What is stored already is copied as it
// is: whole objects, and deltas whose base is among the names. Of what stands on another
// base, that base is copied too where the new pack would be larger than the old ones
// otherwise, which were bounded and counted as they came in. On an error nothing is left
// behind; it wraps ErrDeep where that makes too long a chain of bases.
func Repack(ctx context.Context, from *Set, names []ID, dir *os.Root, name string, serial uint64) (*Pack, error) {
	file, err := dir.OpenFile(name+packEnding, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("repack: %w", err)
	}
	p := &Pack{Name: name, serial: serial, file: file}
	if err := p.repack(ctx, from, names, dir); err != nil {
		return nil, fmt.Errorf("repack: %w", errors.Join(err, p.close(), Remove(dir, name)))
	}
	return p, nil
}

func (p *Pack) repack(ctx context.Context, from *Set, names []ID, dir *os.Root) error {
	r := &repacker{ctx: ctx, from: from, keep: make(map[ID]bool, len(names)), layouts: map[*Pack]*layout{}, bases: map[ID]*base{}, zlib: zlib.NewWriter(nil)}
	for _, id := range names {
		r.keep[id] = true
	}
	if len(r.keep) != len(names) {
		return fmt.Errorf("a name is given twice")
	}
	if err := r.plan(names); err != nil {
		return err
	}
	// How many objects there are is known when all orphans are written; the sum begins with
	// that.
	to := &output{file: p.file, to: bufio.NewWriterSize(p.file, 64<<10), slots: make([]slot, 0, len(names)+len(r.bases))}
	if _, err := to.Write(make([]byte, headerSize)); err != nil {
		return err
	}
	for _, o := range r.orphans {
		if err := r.settle(to, o); err != nil {
			return fmt.Errorf("object %s: %w", o.id, err)
		}
		r.keep[o.id] = false // it is done
	}
	sum, err := to.begin(len(r.keep) + len(r.bases))
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(names), func(id ID) bool { return !r.keep[id] })
	rest = append(rest, slices.SortedFunc(maps.Keys(r.bases), func(a, b ID) int { return bytes.Compare(a[:], b[:]) })...)
	for _, id := range rest {
		if err := r.copied(to, id); err != nil {
			return fmt.Errorf("object %s: %w", id, err)
		}
	}
	if err := to.to.Flush(); err != nil {
		return err
	}
	packSum := ID(sum.Sum(nil))
	if _, err := p.file.Write(packSum[:]); err != nil {
		return err
	}
	p.Size = to.offset + trailerSize
	p.index, err = makeIndex(dir, p.Name, to.slots, packSum)
	return err
}

// output is a pack that is written. It knows where it is, and the checksum of the entry that
// is written.
type output struct {
	file   *os.File
	to     *bufio.Writer
	offset int64
	crc    uint32
	slots  []slot
}

// Write adds bytes.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.offset += int64(n)
	o.crc = crc32.Update(o.crc, crc32.IEEETable, p[:n])
	return n, err
}

// entry adds an object, which write writes.
func (o *output) entry(id ID, write func() error) error {
	start := o.offset
	o.crc = 0
	if err := write(); err != nil {
		return err
	}
	o.slots = append(o.slots, slot{id: id, crc: o.crc, offset: start})
	return nil
}

// try is entry where the pack may stay as it was: write gives errTooLong then.
func (o *output) try(id ID, write func() error) (bool, error) {
	if err := o.to.Flush(); err != nil {
		return false, err
	}
	start := o.offset
	err := o.entry(id, write)
	if !errors.Is(err, errTooLong) {
		return err == nil, err
	}
	o.to.Reset(o.file)
	o.offset = start
	if _, err := o.file.Seek(start, io.SeekStart); err != nil {
		return false, err
	}
	return false, o.file.Truncate(start)
}

// begin writes the head of a pack of so many objects, and gives the sum of all that is
// written so far and of what will be.
func (o *output) begin(count int) (hash.Hash, error) {
	if err := o.to.Flush(); err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(count))
	if _, err := o.file.WriteAt(head, 0); err != nil {
		return nil, err
	}
	sum := sha1.New()
	if _, err := io.Copy(sum, io.NewSectionReader(o.file, 0, o.offset)); err != nil {
		return nil, err
	}
	o.to = bufio.NewWriterSize(io.MultiWriter(o.file, sum), 64<<10)
	return sum, nil
}

// repacker copies entries from the packs of a Set.
type repacker struct {
	ctx     context.Context
	from    *Set
	keep    map[ID]bool
	layouts map[*Pack]*layout
	zlib    *zlib.Writer // one for all objects: each has 800 kB of tables

	// orphans are those whose base is not kept, bases what they and these stand on, and
	// budget by how much the new pack may be larger than with all of these.
	orphans []orphan
	bases   map[ID]*base
	budget  int64
}

// stored is an entry as it can be copied.
type stored struct {
	pack *Pack
	// base is the object that a delta stands on; zero for a whole object.
	base ID
	head []byte
	// dataAt and end are where the deflated data is.
	dataAt, end int64
}

func (s *stored) size() int64 { return int64(len(s.head)) + s.end - s.dataAt }

// look finds an object.
func (r *repacker) look(id ID) (stored, error) {
	p, offset, err := r.from.find(id)
	if err != nil {
		return stored{}, err
	}
	e, err := p.entryAt(offset)
	if err != nil {
		return stored{}, err
	}
	l, err := r.layout(p)
	if err != nil {
		return stored{}, err
	}
	s := stored{pack: p, dataAt: e.dataAt, base: e.baseID}
	if s.end, err = l.end(offset, e); err != nil {
		return stored{}, err
	}
	switch e.kind {
	case offsetDelta:
		if s.base, err = r.nameAt(l, e.baseOffset); err != nil {
			return stored{}, err
		}
		fallthrough
	case nameDelta:
		s.head = append(appendHead(nil, nameDelta, e.size), s.base[:]...)
	default:
		s.head = appendHead(nil, e.kind, e.size)
	}
	return s, nil
}

// nameAt names the object at an offset. One that its pack holds twice has only one of its
// places in the index.
func (r *repacker) nameAt(l *layout, offset int64) (ID, error) {
	if id, ok := l.names[offset]; ok {
		return id, nil
	}
	object, err := r.from.resolve(l.pack, offset)
	if err != nil {
		return ID{}, fmt.Errorf("delta base: %w", err)
	}
	id := nameOf(object)
	l.names[offset] = id
	return id, nil
}

// copied writes an object as it is stored.
func (r *repacker) copied(to *output, id ID) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	s, err := r.look(id)
	if err != nil {
		return err
	}
	return to.entry(id, func() error {
		if _, err := to.Write(s.head); err != nil {
			return err
		}
		// It holds no object: one may be as long as a pack.
		n := s.end - s.dataAt
		_, err := io.CopyN(to, io.NewSectionReader(s.pack.file, s.dataAt, n), n)
		return err
	})
}

// whole writes an object without a base.
func (r *repacker) whole(to io.Writer, id ID) error {
	object, err := r.from.Object(id)
	if err != nil {
		return err
	}
	if _, err := to.Write(appendHead(nil, object.Kind, int64(len(object.Data)))); err != nil {
		return err
	}
	r.zlib.Reset(to)
	if _, err := r.zlib.Write(object.Data); err != nil {
		return err
	}
	return r.zlib.Close()
}

// layout knows where the entries of a pack begin.
type layout struct {
	pack   *Pack
	starts []int64
	names  map[int64]ID
	// gaps is set where there are entries that no index has: objects that are there twice.
	gaps bool
}

func (r *repacker) layout(p *Pack) (*layout, error) {
	if l, ok := r.layouts[p]; ok {
		return l, nil
	}
	var head [headerSize]byte
	if _, err := p.file.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read pack %q: %w", p.Name, err)
	}
	l := &layout{pack: p, names: make(map[int64]ID, p.Len()), gaps: int64(binary.BigEndian.Uint32(head[8:])) != int64(p.Len())}
	for n := range p.index.blocks() {
		b, err := p.index.read(n)
		if err != nil {
			return nil, fmt.Errorf("read index of %q: %w", p.Name, err)
		}
		for i, offset := range b.offsets {
			if offset >= 0 {
				l.starts = append(l.starts, offset)
				l.names[offset] = b.id(i)
			}
		}
	}
	slices.SortFunc(l.starts, cmp.Compare[int64])
	r.layouts[p] = l
	return l, nil
}

// end is where the entry at an offset ends.
func (l *layout) end(offset int64, e entry) (int64, error) {
	if l.gaps {
		length, err := l.pack.deflated(e)
		return e.dataAt + length, err
	}
	end := l.pack.Size - trailerSize
	if i, _ := slices.BinarySearch(l.starts, offset+1); i < len(l.starts) {
		end = l.starts[i]
	}
	if end <= e.dataAt {
		return 0, fmt.Errorf("%w: entries overlap", ErrCorrupt)
	}
	return end, nil
}

// deflated is the length of the data of an entry.
func (p *Pack) deflated(e entry) (int64, error) {
	in := &counter{in: bufio.NewReader(p.section(e.dataAt))}
	f, err := newInflater(in)
	if err != nil {
		return 0, err
	}
	defer f.release()
	if _, err := io.CopyN(io.Discard, f, e.size); err != nil {
		return 0, shortError(err, e.size)
	}
	err = f.end(e.size) // the sum of the data belongs to it
	return in.read, err
}

// counter counts what is read.
type counter struct {
	in   *bufio.Reader
	read int64
}

// Read reads some bytes.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.read += int64(n)
	return n, err
}

// ReadByte reads one: so no more is read than belongs to the data.
func (c *counter) ReadByte() (byte, error) {
	b, err := c.in.ReadByte()
	if err == nil {
		c.read++
	}
	return b, err
}
