package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ledger is the list of the objects of a pack while it comes in, which takes as long as a
// server likes. A long one is on disk until the pack is whole, so that many packs that
// come in at once, or hang, take little memory.
type ledger struct {
	dir   *os.Root
	name  string
	most  int      // entries in memory
	file  *os.File // nil until it is needed
	tail  []received
	count int
}

const (
	ledgerEnding = ".entries"
	// ledgerEntries is how many entries are in memory, and ledgerSize the bytes of one on
	// disk.
	ledgerEntries = 4096
	ledgerSize    = 4*8 + 2*len(ID{}) + 4 + 4 + 1
)

// add puts an entry at the end.
func (l *ledger) add(e received) error {
	if len(l.tail) == l.most {
		if err := l.spill(); err != nil {
			return err
		}
	}
	l.tail = append(l.tail, e)
	l.count++
	return nil
}

// spill writes what is in memory to the file.
func (l *ledger) spill() error {
	if l.file == nil {
		var err error
		if l.file, err = l.dir.OpenFile(l.name+ledgerEnding, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return fmt.Errorf("write list of objects: %w", err)
		}
	}
	raw := make([]byte, 0, len(l.tail)*ledgerSize)
	for i := range l.tail {
		raw = l.tail[i].append(raw)
	}
	if _, err := l.file.Write(raw); err != nil {
		return fmt.Errorf("write list of objects: %w", err)
	}
	l.tail = l.tail[:0]
	return nil
}

// all gives the entries, in order. They are the caller's: another call gives them as they
// came in again.
func (l *ledger) all() ([]received, error) {
	if l.file == nil {
		return slices.Clone(l.tail), nil
	}
	entries := make([]received, 0, l.count)
	in := io.NewSectionReader(l.file, 0, int64(l.count-len(l.tail))*int64(ledgerSize))
	raw := make([]byte, ledgerEntries*ledgerSize)
	for len(entries) < l.count-len(l.tail) {
		n := min(len(raw), (l.count-len(l.tail)-len(entries))*ledgerSize)
		if _, err := io.ReadFull(in, raw[:n]); err != nil {
			return nil, fmt.Errorf("read list of objects: %w", err)
		}
		for at := 0; at < n; at += ledgerSize {
			entries = append(entries, receivedOf(raw[at:at+ledgerSize]))
		}
	}
	return append(entries, l.tail...), nil
}

// close removes the file.
func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	return errors.Join(l.file.Close(), l.dir.Remove(l.name+ledgerEnding))
}

// append writes an entry in ledgerSize bytes.
func (e *received) append(to []byte) []byte {
	for _, n := range []int64{e.offset, e.dataAt, e.size, e.baseAt} {
		to = binary.LittleEndian.AppendUint64(to, uint64(n))
	}
	to = append(to, e.id[:]...)
	to = append(to, e.base[:]...)
	to = binary.LittleEndian.AppendUint32(to, e.crc)
	to = binary.LittleEndian.AppendUint32(to, uint32(e.depth))
	return append(to, byte(e.kind))
}

// receivedOf reads what append wrote.
func receivedOf(raw []byte) (e received) {
	for _, n := range []*int64{&e.offset, &e.dataAt, &e.size, &e.baseAt} {
		*n = int64(binary.LittleEndian.Uint64(raw))
		raw = raw[8:]
	}
	raw = raw[copy(e.id[:], raw):]
	raw = raw[copy(e.base[:], raw):]
	e.crc, e.depth = binary.LittleEndian.Uint32(raw), int32(binary.LittleEndian.Uint32(raw[4:]))
	e.kind = Kind(raw[8])
	return e
}
