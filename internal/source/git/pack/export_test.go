package pack

import "crypto/sha1" //nolint:gosec // Git's own checksum

// Names are the names of all objects of a pack.
func (p *Pack) Names() []ID {
	var names []ID
	for n := range p.index.blocks() {
		b, err := p.index.read(n)
		if err != nil {
			panic(err)
		}
		for i := range b.offsets {
			names = append(names, b.id(i))
		}
	}
	return names
}

// Sealed gives mangled data the checksum that a pack needs to be looked into.
func Sealed(data []byte) []byte {
	if len(data) < trailerSize {
		return data
	}
	body := data[:len(data)-trailerSize]
	sum := sha1.Sum(body)
	return append(body[:len(body):len(body)], sum[:]...)
}
