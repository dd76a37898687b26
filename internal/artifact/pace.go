package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// pace is how many bytes a server that is asked for an artifact has to bring in a time, of
// which only that counts in which it is waited for.
type pace struct {
	bytes int
	in    time.Duration
}

// paced is an answer that is waited for, and then read, for as long as it keeps the pace.
type paced struct {
	io.ReadCloser
	pace   pace
	ctx    context.Context //nolint:containedctx // that of the request
	cancel context.CancelCauseFunc
	// got is how many bytes have come since left was the whole time.
	got  int
	left time.Duration
}

// keeping begins to wait. What is asked is asked with the context of the answer.
func (p pace) keeping(ctx context.Context) *paced {
	ctx, cancel := context.WithCancelCause(ctx)
	return &paced{pace: p, ctx: ctx, cancel: cancel, left: p.in}
}

// wait does something that takes as long as the server does, and gives how many bytes it has
// brought.
func (p *paced) wait(do func() (int, error)) (int, error) {
	timer := time.AfterFunc(p.left, func() {
		p.cancel(fmt.Errorf("its server hangs: fewer than %d bytes in %s", p.pace.bytes, p.pace.in))
	})
	began := time.Now()
	n, err := do()
	timer.Stop()
	p.left -= time.Since(began)
	if p.got += n; p.got >= p.pace.bytes {
		p.got, p.left = 0, p.pace.in
	}
	if cause := context.Cause(p.ctx); err != nil && !errors.Is(err, io.EOF) && cause != nil {
		err = cause
	}
	return n, err
}

// Read waits for more.
func (p *paced) Read(to []byte) (int, error) {
	return p.wait(func() (int, error) { return p.ReadCloser.Read(to) })
}

// Close gives up what is left.
func (p *paced) Close() error {
	err := p.ReadCloser.Close()
	p.cancel(nil)
	return err
}
