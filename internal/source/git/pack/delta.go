package pack

import (
	"encoding/binary"
	"fmt"
)

// deltaSizes reads the sizes of base and result from the head of a delta.
func deltaSizes(delta []byte) (base, result int64, rest []byte, err error) {
	b, n := binary.Uvarint(delta)
	if n <= 0 {
		return 0, 0, nil, fmt.Errorf("%w: delta without base size", ErrCorrupt)
	}
	r, m := binary.Uvarint(delta[n:])
	if m <= 0 {
		return 0, 0, nil, fmt.Errorf("%w: delta without result size", ErrCorrupt)
	}
	const sane = 1 << 40
	if b > sane || r > sane {
		return 0, 0, nil, fmt.Errorf("%w: delta of absurd size", ErrCorrupt)
	}
	return int64(b), int64(r), delta[n+m:], nil
}

// patch applies a delta to its base. A limit of zero is none.
func patch(base, delta []byte, limit int64) ([]byte, error) {
	baseSize, size, ops, err := deltaSizes(delta)
	if err != nil {
		return nil, err
	}
	if baseSize != int64(len(base)) {
		return nil, fmt.Errorf("%w: delta for a base of another size", ErrCorrupt)
	}
	if limit > 0 && size > limit {
		return nil, fmt.Errorf("%w: object of %d bytes, at most %d are allowed", ErrTooLarge, size, limit)
	}
	// The size is the server's word: a few bytes of delta must not make us reserve more
	// than they fill; nor is the result copied as it grows, which takes twice its size.
	if size > int64(len(base)+len(delta)) {
		if made := deltaMakes(ops, size); made != size {
			return nil, fmt.Errorf("%w: delta makes other than it says", ErrCorrupt)
		}
	}
	out := make([]byte, 0, size)
	for len(ops) > 0 {
		op := ops[0]
		ops = ops[1:]
		switch {
		case op == 0:
			return nil, fmt.Errorf("%w: reserved delta operation", ErrCorrupt)
		case op < 0x80:
			if int(op) > len(ops) {
				return nil, fmt.Errorf("%w: delta ends early", ErrCorrupt)
			}
			out = append(out, ops[:op]...)
			ops = ops[op:]
		default:
			var offset, length int
			if offset, length, ops, err = copyRange(op, ops); err != nil {
				return nil, err
			}
			if offset+length > len(base) {
				return nil, fmt.Errorf("%w: delta copies from outside its base", ErrCorrupt)
			}
			out = append(out, base[offset:offset+length]...)
		}
		if int64(len(out)) > size {
			return nil, fmt.Errorf("%w: delta makes more than it says", ErrCorrupt)
		}
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("%w: delta makes less than it says", ErrCorrupt)
	}
	return out, nil
}

// deltaMakes counts the bytes that a delta makes, until they are more than so many, or as far
// as it can be read.
func deltaMakes(ops []byte, most int64) (made int64) {
	for len(ops) > 0 && made <= most {
		op := ops[0]
		ops = ops[1:]
		if op < 0x80 {
			n := min(int(op), len(ops))
			made += int64(n)
			ops = ops[n:]
			continue
		}
		_, length, rest, err := copyRange(op, ops)
		if err != nil {
			break
		}
		made += int64(length)
		ops = rest
	}
	return made
}

func copyRange(op byte, ops []byte) (offset, length int, rest []byte, err error) {
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		if len(ops) == 0 {
			return 0, 0, nil, fmt.Errorf("%w: delta ends early", ErrCorrupt)
		}
		if i < 4 {
			offset |= int(ops[0]) << (8 * i)
		} else {
			length |= int(ops[0]) << (8 * (i - 4))
		}
		ops = ops[1:]
	}
	if length == 0 {
		length = 0x10000
	}
	return offset, length, ops, nil
}
