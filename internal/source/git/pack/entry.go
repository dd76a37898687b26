package pack

import (
	"fmt"
	"io"
)

// entry is the head of an object in a pack file.
type entry struct {
	kind Kind
	// size is the length of what is deflated: of the object, or of the delta.
	size int64
	// baseOffset and baseID name the base of a delta.
	baseOffset int64
	baseID     ID
	// dataAt is the offset of the deflated data.
	dataAt int64
}

// longestHead is the most bytes that the head of an entry can have.
const longestHead = 10 + 20

// entryAt reads the head of the entry at an offset.
func (p *Pack) entryAt(offset int64) (entry, error) {
	if offset < headerSize || offset >= p.Size-trailerSize {
		return entry{}, fmt.Errorf("%w: offset %d is outside the pack", ErrCorrupt, offset)
	}
	head := make([]byte, min(longestHead, p.Size-trailerSize-offset))
	if _, err := p.file.ReadAt(head, offset); err != nil {
		return entry{}, fmt.Errorf("read pack %q: %w", p.Name, err)
	}
	b := &sliceReader{data: head}
	e, err := readEntry(b, offset)
	if err != nil {
		return entry{}, err
	}
	e.dataAt = offset + int64(b.at)
	return e, nil
}

// readEntry reads the head of the entry that begins at offset.
func readEntry(r io.ByteReader, offset int64) (entry, error) {
	first, err := r.ReadByte()
	if err != nil {
		return entry{}, err
	}
	e := entry{kind: Kind(first >> 4 & 7), size: int64(first & 15)}
	for shift, more := 4, first&0x80 != 0; more; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return entry{}, err
		}
		if shift > 53 {
			return entry{}, fmt.Errorf("%w: size of an object is absurd", ErrCorrupt)
		}
		e.size |= int64(b&0x7f) << shift
		more = b&0x80 != 0
	}
	switch e.kind {
	case Commit, Tree, Blob, Tag:
		return e, nil
	case offsetDelta:
		distance, err := readDistance(r)
		if err != nil {
			return entry{}, err
		}
		e.baseOffset = offset - distance
		if distance <= 0 || e.baseOffset < headerSize {
			return entry{}, fmt.Errorf("%w: delta base is outside the pack", ErrCorrupt)
		}
		return e, nil
	case nameDelta:
		for i := range e.baseID {
			if e.baseID[i], err = r.ReadByte(); err != nil {
				return entry{}, err
			}
		}
		return e, nil
	default:
		return entry{}, fmt.Errorf("%w: unknown %s", ErrCorrupt, e.kind)
	}
}

func readDistance(r io.ByteReader) (int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	distance := int64(b & 0x7f)
	for b&0x80 != 0 {
		if b, err = r.ReadByte(); err != nil {
			return 0, err
		}
		if distance > 1<<48 {
			return 0, fmt.Errorf("%w: distance to a delta base is absurd", ErrCorrupt)
		}
		distance = (distance+1)<<7 | int64(b&0x7f)
	}
	return distance, nil
}

// appendHead writes the head of an entry without its base.
func appendHead(to []byte, kind Kind, size int64) []byte {
	b := byte(kind)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		to = append(to, b|0x80)
		b = byte(size & 0x7f)
	}
	return append(to, b)
}

// section reads the deflated data from an offset on.
func (p *Pack) section(offset int64) io.Reader {
	return io.NewSectionReader(p.file, offset, p.Size-trailerSize-offset)
}

func (p *Pack) inflate(e entry) ([]byte, error) {
	f, err := newInflater(p.section(e.dataAt))
	if err != nil {
		return nil, err
	}
	defer f.release()
	return f.readAll(e.size)
}

// sliceReader reads bytes and knows how many it has read.
type sliceReader struct {
	data []byte
	at   int
}

// ReadByte gives the next byte.
func (r *sliceReader) ReadByte() (byte, error) {
	if r.at == len(r.data) {
		return 0, io.ErrUnexpectedEOF
	}
	r.at++
	return r.data[r.at-1], nil
}
