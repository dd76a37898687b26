package pack

import (
	"bufio"
	"cmp"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// Repack writes the objects with the given names, which must not repeat, from a Set into
// one new pack that needs no other one. What is stored already is copied as it
// is: whole objects, and deltas whose base is among the names. On an error
// nothing is left behind.
func Repack(ctx context.Context, from *Set, names []ID, dir *os.Root, name string, serial uint64) (*Pack, error) {
	file, err := dir.OpenFile(name+packEnding, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("repack: %w", err)
	}
	p := &Pack{Name: name, serial: serial, file: file}
	if err := p.repack(ctx, from, names, dir); err != nil {
		return nil, fmt.Errorf("repack: %w", errors.Join(err, file.Close(), Remove(dir, name)))
	}
	return p, nil
}

func (p *Pack) repack(ctx context.Context, from *Set, names []ID, dir *os.Root) error {
	r := &repacker{from: from, keep: make(map[ID]bool, len(names)), layouts: map[*Pack]*layout{}, zlib: zlib.NewWriter(nil)}
	for _, id := range names {
		r.keep[id] = true
	}
	if len(r.keep) != len(names) {
		return fmt.Errorf("a name is given twice")
	}
	sum := sha1.New()
	out := bufio.NewWriterSize(io.MultiWriter(p.file, sum), 64<<10)
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(r.keep)))
	if _, err := out.Write(head); err != nil {
		return err
	}
	to := &output{to: out, offset: int64(len(head))}
	slots := make([]slot, 0, len(r.keep))
	for _, id := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := to.offset
		to.crc = 0
		if err := r.entry(to, id); err != nil {
			return fmt.Errorf("object %s: %w", id, err)
		}
		slots = append(slots, slot{id: id, crc: to.crc, offset: start})
	}
	if err := out.Flush(); err != nil {
		return err
	}
	packSum := ID(sum.Sum(nil))
	if _, err := p.file.Write(packSum[:]); err != nil {
		return err
	}
	p.Size = to.offset + trailerSize
	p.index = newIndex(slots, packSum)
	return dir.WriteFile(p.Name+indexEnding, p.index.raw, 0o600)
}

// output knows where it is in a pack, and the checksum of the entry that is written.
type output struct {
	to     *bufio.Writer
	offset int64
	crc    uint32
}

// Write adds bytes.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.offset += int64(n)
	o.crc = crc32.Update(o.crc, crc32.IEEETable, p[:n])
	return n, err
}

// repacker copies entries from the packs of a Set.
type repacker struct {
	from    *Set
	keep    map[ID]bool
	layouts map[*Pack]*layout
	zlib    *zlib.Writer // one for all objects: each has 800 kB of tables
}

// entry writes the object as it is to stand in the new pack.
func (r *repacker) entry(to io.Writer, id ID) error {
	p, offset, ok := r.from.find(id)
	if !ok {
		return ErrNotFound
	}
	e, err := p.entryAt(offset)
	if err != nil {
		return err
	}
	l := r.layout(p)
	switch e.kind {
	case offsetDelta:
		// An object that its pack holds twice has only one of its places in
		// the index; a delta on the other one finds no name here.
		if e.baseID, ok = l.names[e.baseOffset]; !ok {
			return r.whole(to, id)
		}
		fallthrough
	case nameDelta:
		if !r.keep[e.baseID] {
			return r.whole(to, id)
		}
		return r.copy(to, p, appendBase(appendHead(nil, nameDelta, e.size), e.baseID), e, l.end(offset))
	default:
		return r.copy(to, p, appendHead(nil, e.kind, e.size), e, l.end(offset))
	}
}

func appendBase(head []byte, base ID) []byte { return append(head, base[:]...) }

// copy holds no object: one may be as long as a pack.
func (*repacker) copy(to io.Writer, p *Pack, head []byte, e entry, end int64) error {
	if end <= e.dataAt {
		return fmt.Errorf("%w: entries overlap", ErrCorrupt)
	}
	if _, err := to.Write(head); err != nil {
		return err
	}
	_, err := io.CopyN(to, io.NewSectionReader(p.file, e.dataAt, end-e.dataAt), end-e.dataAt)
	return err
}

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
	starts []int64
	size   int64
	names  map[int64]ID
}

func (r *repacker) layout(p *Pack) *layout {
	if l, ok := r.layouts[p]; ok {
		return l
	}
	l := &layout{size: p.Size - trailerSize, names: make(map[int64]ID, p.Len())}
	for i := range p.Len() {
		if offset, ok := p.index.offset(i); ok {
			l.starts = append(l.starts, offset)
			l.names[offset] = p.index.id(i)
		}
	}
	slices.SortFunc(l.starts, cmp.Compare[int64])
	r.layouts[p] = l
	return l
}

// end is where the entry at an offset ends.
func (l *layout) end(offset int64) int64 {
	i, _ := slices.BinarySearch(l.starts, offset+1)
	if i < len(l.starts) {
		return l.starts[i]
	}
	return l.size
}
