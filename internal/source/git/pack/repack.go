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
	p.Size = int64(len(head))
	slots := make([]slot, 0, len(r.keep))
	for _, id := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		raw, err := r.entry(id)
		if err != nil {
			return fmt.Errorf("object %s: %w", id, err)
		}
		if _, err := out.Write(raw); err != nil {
			return err
		}
		slots = append(slots, slot{id: id, crc: crc32.ChecksumIEEE(raw), offset: p.Size})
		p.Size += int64(len(raw))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	packSum := ID(sum.Sum(nil))
	if _, err := p.file.Write(packSum[:]); err != nil {
		return err
	}
	p.Size += trailerSize
	p.index = newIndex(slots, packSum)
	return dir.WriteFile(p.Name+indexEnding, p.index.raw, 0o600)
}

// repacker copies entries from the packs of a Set.
type repacker struct {
	from    *Set
	keep    map[ID]bool
	layouts map[*Pack]*layout
	zlib    *zlib.Writer // one for all objects: each has 800 kB of tables
}

// entry is the object as it is to stand in the new pack.
func (r *repacker) entry(id ID) ([]byte, error) {
	p, offset, ok := r.from.find(id)
	if !ok {
		return nil, ErrNotFound
	}
	e, err := p.entryAt(offset)
	if err != nil {
		return nil, err
	}
	l := r.layout(p)
	switch e.kind {
	case offsetDelta:
		// An object that its pack holds twice has only one of its places in
		// the index; a delta on the other one finds no name here.
		if e.baseID, ok = l.names[e.baseOffset]; !ok {
			return r.whole(id)
		}
		fallthrough
	case nameDelta:
		if !r.keep[e.baseID] {
			return r.whole(id)
		}
		return r.copy(p, appendBase(appendHead(nil, nameDelta, e.size), e.baseID), e, l.end(offset))
	default:
		return r.copy(p, appendHead(nil, e.kind, e.size), e, l.end(offset))
	}
}

func appendBase(head []byte, base ID) []byte { return append(head, base[:]...) }

func (*repacker) copy(p *Pack, head []byte, e entry, end int64) ([]byte, error) {
	if end <= e.dataAt {
		return nil, fmt.Errorf("%w: entries overlap", ErrCorrupt)
	}
	raw := append(head, make([]byte, end-e.dataAt)...)
	_, err := p.file.ReadAt(raw[len(head):], e.dataAt)
	return raw, err
}

func (r *repacker) whole(id ID) ([]byte, error) {
	object, err := r.from.Object(id)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(appendHead(nil, object.Kind, int64(len(object.Data))))
	r.zlib.Reset(out)
	if _, err := r.zlib.Write(object.Data); err != nil {
		return nil, err
	}
	if err := r.zlib.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
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
