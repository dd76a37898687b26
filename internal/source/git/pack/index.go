package pack

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"fmt"
	"slices"
)

// index finds objects in a pack: Git's version 2 index, held as it is on disk.
type index struct {
	raw   []byte
	count int
}

// slot is one object's place in a pack, while an index is made.
type slot struct {
	id     ID
	crc    uint32
	offset int64
}

const (
	indexHeader = 8
	fanoutSize  = 256 * 4
	namesAt     = indexHeader + fanoutSize
)

var indexMagic = []byte{0xff, 't', 'O', 'c', 0, 0, 0, 2}

// newIndex makes the index of a pack. It orders the slots.
func newIndex(slots []slot, packSum ID) *index {
	slices.SortFunc(slots, func(a, b slot) int {
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.offset, b.offset))
	})
	n := len(slots)
	var fanout [256]uint32
	for _, s := range slots {
		fanout[s.id[0]]++
	}
	raw := make([]byte, 0, namesAt+n*28+2*trailerSize)
	raw = append(raw, indexMagic...)
	total := uint32(0)
	for _, count := range fanout {
		total += count
		raw = binary.BigEndian.AppendUint32(raw, total)
	}
	for _, s := range slots {
		raw = append(raw, s.id[:]...)
	}
	for _, s := range slots {
		raw = binary.BigEndian.AppendUint32(raw, s.crc)
	}
	var large []byte
	for _, s := range slots {
		if s.offset < 1<<31 {
			raw = binary.BigEndian.AppendUint32(raw, uint32(s.offset))
			continue
		}
		raw = binary.BigEndian.AppendUint32(raw, 1<<31|uint32(len(large)/8))
		large = binary.BigEndian.AppendUint64(large, uint64(s.offset))
	}
	raw = append(raw, large...)
	raw = append(raw, packSum[:]...)
	sum := sha1.Sum(raw)
	return &index{raw: append(raw, sum[:]...), count: n}
}

// parseIndex checks an index file and takes it over.
func parseIndex(raw []byte) (*index, error) {
	if len(raw) < namesAt+2*trailerSize || !bytes.HasPrefix(raw, indexMagic) {
		return nil, fmt.Errorf("%w: not an index of version 2", ErrCorrupt)
	}
	body := raw[:len(raw)-trailerSize]
	if sum := sha1.Sum(body); !bytes.Equal(sum[:], raw[len(body):]) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	x := &index{raw: raw}
	x.count = int(x.fanout(255))
	previous := uint32(0)
	for i := range 256 {
		if x.fanout(i) < previous {
			return nil, fmt.Errorf("%w: fan-out table is not ordered", ErrCorrupt)
		}
		previous = x.fanout(i)
	}
	if len(raw)-2*trailerSize-namesAt < x.count*28 {
		return nil, fmt.Errorf("%w: shorter than its %d objects need", ErrCorrupt, x.count)
	}
	return x, nil
}

func (x *index) len() int { return x.count }

func (x *index) fanout(i int) uint32 {
	return binary.BigEndian.Uint32(x.raw[indexHeader+4*i:])
}

func (x *index) packSum() ID { return ID(x.raw[len(x.raw)-2*trailerSize:]) }

func (x *index) id(i int) ID { return ID(x.raw[namesAt+20*i:]) }

// find gives the offset of an object in the pack.
func (x *index) find(id ID) (int64, bool) {
	low, high := 0, int(x.fanout(int(id[0])))
	if id[0] > 0 {
		low = int(x.fanout(int(id[0]) - 1))
	}
	for low < high {
		middle := int(uint(low+high) >> 1)
		at := namesAt + 20*middle
		switch bytes.Compare(x.raw[at:at+20], id[:]) {
		case 0:
			return x.offset(middle)
		case -1:
			low = middle + 1
		default:
			high = middle
		}
	}
	return 0, false
}

func (x *index) offset(i int) (int64, bool) {
	table := namesAt + 24*x.count
	offset := binary.BigEndian.Uint32(x.raw[table+4*i:])
	if offset < 1<<31 {
		return int64(offset), true
	}
	at := table + 4*x.count + 8*int(offset&(1<<31-1))
	if at+8 > len(x.raw)-2*trailerSize {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(x.raw[at:]) & (1<<63 - 1)), true
}
