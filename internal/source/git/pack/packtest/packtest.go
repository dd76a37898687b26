// Package packtest makes Git packs for tests that git itself would not make. It is for the
// tests of the packages that read them.
package packtest

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Builder makes a pack of objects and of deltas on them. Its zero value is empty.
type Builder struct {
	out   bytes.Buffer
	zlib  *zlib.Writer
	count int
}

// Object is an object of a Builder.
type Object struct {
	at   int
	kind string
	// Data is the content.
	Data []byte
}

// ID is its name.
func (o Object) ID() [20]byte {
	return sha1.Sum(append(fmt.Appendf(nil, "%s %d\x00", o.kind, len(o.Data)), o.Data...))
}

// Whole adds a commit, tree or blob.
func (b *Builder) Whole(kind string, data []byte) Object {
	number := map[string]byte{"commit": 1, "tree": 2, "blob": 3}[kind]
	return Object{at: b.entry(number, 0, data), kind: kind, Data: data}
}

// Delta adds a delta that copies its base, which is shorter than 16 MiB, some times and adds a
// text, which is shorter than 128 bytes.
func (b *Builder) Delta(base Object, times int, text string) Object {
	data := append(bytes.Repeat(base.Data, times), text...)
	n := len(base.Data)
	delta := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n)), uint64(len(data)))
	for range times {
		delta = append(delta, 0xf0, byte(n), byte(n>>8), byte(n>>16))
	}
	delta = append(append(delta, byte(len(text))), text...)
	return Object{at: b.entry(6, b.out.Len()-base.at, delta), kind: base.kind, Data: data}
}

func (b *Builder) entry(kind byte, distance int, data []byte) int {
	if b.count++; b.count == 1 {
		b.out.WriteString("PACK\x00\x00\x00\x02\x00\x00\x00\x00")
	}
	at := b.out.Len()
	first, n := kind<<4|byte(len(data)&15), len(data)>>4
	for ; n > 0; n >>= 7 {
		b.out.WriteByte(first | 0x80)
		first = byte(n & 0x7f)
	}
	b.out.WriteByte(first)
	if kind == 6 {
		encoded := []byte{byte(distance & 0x7f)}
		for distance >>= 7; distance > 0; distance >>= 7 {
			distance--
			encoded = append([]byte{byte(distance&0x7f) | 0x80}, encoded...)
		}
		b.out.Write(encoded)
	}
	if b.zlib == nil {
		b.zlib = zlib.NewWriter(nil)
	}
	b.zlib.Reset(&b.out)
	_, _ = b.zlib.Write(data) // a buffer takes everything
	_ = b.zlib.Close()
	return at
}

// Pack is the pack so far.
func (b *Builder) Pack() []byte {
	data := bytes.Clone(b.out.Bytes())
	binary.BigEndian.PutUint32(data[8:], uint32(b.count))
	sum := sha1.Sum(data)
	return append(data, sum[:]...)
}

// Random is content that cannot be deflated, the same for the same size.
func Random(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(data)
	return data
}
