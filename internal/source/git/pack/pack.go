// Package pack stores Git objects in pack files and reads them from many
// goroutines at once.
//
// A pack comes in as a stream (Receive), is checked and indexed on its way to
// disk, and is never changed afterwards. It may be thin: its deltas may name
// bases that an older pack of the same Set holds. A Set is an immutable list of
// packs, oldest first; looking a base up oldest first means that every step of a
// delta chain goes to an older pack or to a smaller depth in the same one, so
// that reading always ends, whatever a hostile server sent.
//
// Pack and index files are in Git's own version 2 formats; a thin pack is the
// only thing that git itself would not take. Every object that is read is
// compared with its name, so that a flipped bit on disk is an error and never
// content. The package knows nothing of refs, commits and the network.
package pack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// ID is the SHA-1 name of an object.
type ID [20]byte

// String is the name in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether the ID is no object's name.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads forty hexadecimal digits.
func ParseID(text string) (ID, error) {
	var id ID
	if len(text) != 2*len(id) {
		return ID{}, fmt.Errorf("object name %q does not have 40 digits", text)
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return ID{}, fmt.Errorf("object name %q is not hexadecimal", text)
	}
	return id, nil
}

// Kind is the kind of an object, with its number in pack files.
type Kind uint8

const (
	Commit Kind = 1
	Tree   Kind = 2
	Blob   Kind = 3
	Tag    Kind = 4

	offsetDelta Kind = 6
	nameDelta   Kind = 7
)

// String is the kind's name in object headers.
func (k Kind) String() string {
	switch k {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	case Tag:
		return "tag"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

func (k Kind) isObject() bool { return k >= Commit && k <= Tag }

// Object is an object in memory. Its data must not be changed.
type Object struct {
	Kind Kind
	Data []byte
}

var (
	// ErrNotFound is wrapped when an object is in none of the packs.
	ErrNotFound = errors.New("object not found")
	// ErrCorrupt is wrapped when a pack or an object is not what it should be.
	ErrCorrupt = errors.New("corrupt pack")
	// ErrTooLarge is wrapped when a limit is passed.
	ErrTooLarge = errors.New("limit passed")
	// ErrDeep is wrapped when an object cannot be joined with others but on a long chain of
	// deltas.
	ErrDeep = errors.New("chain of deltas too long")
)

// Limits bound what is taken from a server and what is held in memory. Zero
// means no limit.
type Limits struct {
	// Bytes is the largest pack, in bytes as received.
	Bytes int64
	// Made is how many bytes the objects and deltas of a pack may have when they are
	// inflated: a thousand times as many as it has itself, otherwise.
	Made int64
	// Objects is the largest number of objects in a pack.
	Objects int
	// Object is the largest object that is held in memory, in bytes. A larger
	// one that is stored whole can still be streamed.
	Object int64
	// Slots bound the packs that are indexed at once, and what they hold; nil is no bound.
	Slots *Slots
	// Waits is called before one waits for a slot, and what it returns afterwards; nil is
	// nothing.
	Waits func(ctx context.Context) (resume func())

	work *int64 // bytes that may still be made of deltas; nil is no bound
}

// Pack is a pack file with its index, open for reading by any number of
// goroutines. It is closed when the last Set that holds it is.
type Pack struct {
	// Name is the base of its file names, such as pack-0001.
	Name string
	// Size is the length of the pack file in bytes.
	Size int64
	// Made is how many bytes its objects and deltas had when they came in; 0 for a pack
	// that did not just come in.
	Made int64

	serial uint64 // unique in this process, for the cache
	file   *os.File
	index  *index
	sets   atomic.Int32
}

// Len is the number of objects.
func (p *Pack) Len() int { return p.index.count }

func (p *Pack) close() error {
	err := p.file.Close()
	if p.index != nil {
		err = errors.Join(err, p.index.close())
	}
	return err
}

// Disk is the length of pack and index in bytes.
func (p *Pack) Disk() int64 { return p.Size + p.index.size }

// Open opens the pack and index files called name in a folder. An error that
// wraps ErrCorrupt says that they do not belong together or are damaged; the
// objects themselves are checked when they are read.
func Open(dir *os.Root, name string, serial uint64) (*Pack, error) {
	idx, err := openIndex(dir, name)
	if err != nil {
		return nil, err
	}
	file, err := dir.Open(name + packEnding)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", name, errors.Join(err, idx.close()))
	}
	p := &Pack{Name: name, serial: serial, file: file, index: idx}
	if err := p.check(); err != nil {
		_ = p.close()
		return nil, fmt.Errorf("pack %q: %w", name, err)
	}
	return p, nil
}

const (
	packEnding  = ".pack"
	indexEnding = ".idx"
	trailerSize = 20
	headerSize  = 12
)

// check compares the ends of pack and index.
func (p *Pack) check() error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	p.Size = info.Size()
	if p.Size < headerSize+trailerSize {
		return fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, p.Size)
	}
	var sum ID
	if _, err := p.file.ReadAt(sum[:], p.Size-trailerSize); err != nil {
		return err
	}
	if sum != p.index.sum {
		return fmt.Errorf("%w: pack and index do not belong together", ErrCorrupt)
	}
	return nil
}

// Remove deletes the files of a pack. A Set that has it open can go on reading.
func Remove(dir *os.Root, name string) error {
	return errors.Join(ignoreMissing(dir.Remove(name+packEnding)), ignoreMissing(dir.Remove(name+indexEnding)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
