package artifact

import (
	"context"
	"io"
)

// endable ends reading with a context.
type endable struct {
	ctx context.Context
	r   io.Reader
}

// Endable reads from r until the context ends, whose error is what a Read gives from then
// on. It does not end a Read that waits.
func Endable(ctx context.Context, r io.Reader) io.Reader { return &endable{ctx, r} }

// Read gives bytes while they are wanted.
func (e *endable) Read(to []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(to)
}
