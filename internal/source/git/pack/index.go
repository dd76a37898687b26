package pack

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
)

// index finds objects in a pack: Git's version 2 index. It stays on disk, from which blocks of
// names are read, as a server decides how many objects there are: in memory is the first name
// of each block, and the whole of a small index.
type index struct {
	in    io.ReaderAt
	file  *os.File // nil where all is in memory
	size  int64
	count int
	sum   ID // of the pack
	// firsts are the first names of the blocks.
	firsts []ID
	// held is the only block of a small index; nil otherwise.
	held *block
}

// block is a part of an index.
type block struct {
	names []byte
	// offsets are those in the pack; -1 for one that makes no sense.
	offsets []int64
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
	// blockNames is how many names a block has, and blockBytes what it holds in memory.
	blockNames = 1024
	blockBytes = blockNames*(20+8) + 100
	// heldNames is how many names a small index has: there may be a hundred for a repository.
	heldNames = 128
)

var indexMagic = []byte{0xff, 't', 'O', 'c', 0, 0, 0, 2}

// encodeIndex makes the index of a pack. It orders the slots.
func encodeIndex(slots []slot, packSum ID) []byte {
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
	return append(raw, sum[:]...)
}

// makeIndex writes the index of a pack and opens it.
func makeIndex(dir *os.Root, name string, slots []slot, packSum ID) (*index, error) {
	if err := dir.WriteFile(name+indexEnding, encodeIndex(slots, packSum), 0o600); err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	return openIndex(dir, name)
}

// openIndex opens the index file of a pack.
func openIndex(dir *os.Root, name string) (*index, error) {
	file, err := dir.Open(name + indexEnding)
	if err != nil {
		return nil, fmt.Errorf("open index of %q: %w", name, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("open index of %q: %w", name, errors.Join(err, file.Close()))
	}
	x, err := parseIndex(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("index of %q: %w", name, errors.Join(err, file.Close()))
	}
	if x.held != nil {
		x.in = nil
		return x, file.Close()
	}
	x.file = file
	return x, nil
}

// parseIndex checks an index, of which it reads all once.
func parseIndex(in io.ReaderAt, size int64) (*index, error) {
	x := &index{in: in, size: size}
	if size < namesAt+2*trailerSize {
		return nil, fmt.Errorf("%w: not an index of version 2", ErrCorrupt)
	}
	sum := sha1.New()
	rest := io.TeeReader(io.NewSectionReader(in, 0, size-trailerSize), sum)
	var head [namesAt]byte
	if _, err := io.ReadFull(rest, head[:]); err != nil {
		return nil, cutOff(err)
	}
	if !bytes.HasPrefix(head[:], indexMagic) {
		return nil, fmt.Errorf("%w: not an index of version 2", ErrCorrupt)
	}
	previous := uint32(0)
	for at := indexHeader; at < namesAt; at += 4 {
		next := binary.BigEndian.Uint32(head[at:])
		if next < previous {
			return nil, fmt.Errorf("%w: fan-out table is not ordered", ErrCorrupt)
		}
		previous = next
	}
	x.count = int(previous)
	if size-2*trailerSize-namesAt < int64(x.count)*28 {
		return nil, fmt.Errorf("%w: shorter than its %d objects need", ErrCorrupt, x.count)
	}
	if err := x.check(rest, sum); err != nil {
		return nil, err
	}
	if x.count <= heldNames {
		var err error
		x.held, err = x.read(0)
		return x, err
	}
	return x, nil
}

// check reads what follows the head, and the sum of all.
func (x *index) check(rest io.Reader, sum hash.Hash) error {
	names := make([]byte, 20*min(blockNames, x.count))
	for from := 0; from < x.count; from += blockNames {
		part := names[:20*min(blockNames, x.count-from)]
		if _, err := io.ReadFull(rest, part); err != nil {
			return cutOff(err)
		}
		x.firsts = append(x.firsts, ID(part))
	}
	if _, err := io.CopyN(io.Discard, rest, x.size-2*trailerSize-namesAt-20*int64(x.count)); err != nil {
		return cutOff(err)
	}
	if _, err := io.ReadFull(rest, x.sum[:]); err != nil {
		return cutOff(err)
	}
	var want ID
	if _, err := x.in.ReadAt(want[:], x.size-trailerSize); err != nil {
		return cutOff(err)
	}
	if want != ID(sum.Sum(nil)) {
		return fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	return nil
}

// cutOff is the error of a file that ends before it should, or another one.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: index is cut off", ErrCorrupt)
	}
	return err
}

func (x *index) close() error {
	if x.file == nil {
		return nil
	}
	return x.file.Close()
}

// blocks is how many blocks there are.
func (x *index) blocks() int { return len(x.firsts) }

// read reads a block.
func (x *index) read(n int) (*block, error) {
	if x.held != nil {
		return x.held, nil
	}
	from := n * blockNames
	count := max(0, min(blockNames, x.count-from))
	b := &block{names: make([]byte, 20*count), offsets: make([]int64, count)}
	if _, err := x.in.ReadAt(b.names, int64(namesAt+20*from)); err != nil && count > 0 {
		return nil, cutOff(err)
	}
	var raw [4 * blockNames]byte
	table := int64(namesAt + 24*x.count)
	if _, err := x.in.ReadAt(raw[:4*count], table+int64(4*from)); err != nil && count > 0 {
		return nil, cutOff(err)
	}
	for i := range b.offsets {
		short := binary.BigEndian.Uint32(raw[4*i:])
		b.offsets[i] = int64(short)
		if short < 1<<31 {
			continue
		}
		at := table + 4*int64(x.count) + 8*int64(short&(1<<31-1))
		if b.offsets[i] = -1; at+8 > x.size-2*trailerSize {
			continue
		}
		var long [8]byte
		if _, err := x.in.ReadAt(long[:], at); err != nil {
			return nil, cutOff(err)
		}
		b.offsets[i] = int64(binary.BigEndian.Uint64(long[:]) & (1<<63 - 1))
	}
	return b, nil
}

func (b *block) id(i int) ID { return ID(b.names[20*i:]) }

// find gives the offset of an object in the pack; false where it is not in it. Get gives
// blocks.
func (x *index) find(id ID, get func(n int) (*block, error)) (int64, bool, error) {
	// The block is the last one that begins with the name or one before it.
	n, found := slices.BinarySearchFunc(x.firsts, id, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	if !found {
		n--
	}
	if n < 0 {
		return 0, false, nil
	}
	b := x.held
	if b == nil {
		var err error
		if b, err = get(n); err != nil {
			return 0, false, err
		}
	}
	low, high := 0, len(b.offsets)
	for low < high {
		middle := int(uint(low+high) >> 1)
		switch bytes.Compare(b.names[20*middle:20*middle+20], id[:]) {
		case 0:
			return b.offsets[middle], b.offsets[middle] >= 0, nil
		case -1:
			low = middle + 1
		default:
			high = middle
		}
	}
	return 0, false, nil
}
