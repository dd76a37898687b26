package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// boundKey is where a context keeps the bound of answers.
type boundKey struct{}

// TooLarge is the error of an answer that is larger than its reader allows.
type TooLarge struct {
	// Bytes is the bound.
	Bytes int64
}

// Error names the bound.
func (e *TooLarge) Error() string {
	return fmt.Sprintf("the server's answer has more than %d bytes", e.Bytes)
}

// Bound gives a context in which no answer to a request through a Transport has more
// bytes than the given ones; what is larger fails with TooLarge, before it is read where
// the server says its size. It is for libraries that read whole answers into memory and
// take no transport of one's own.
func Bound(ctx context.Context, bytes int64) context.Context {
	return context.WithValue(ctx, boundKey{}, bytes)
}

// bound keeps an answer within the bound of its request.
func bound(response *http.Response) (*http.Response, error) {
	limit, ok := response.Request.Context().Value(boundKey{}).(int64)
	if !ok {
		return response, nil
	}
	if response.ContentLength > limit && response.Request.Method != http.MethodHead {
		_ = response.Body.Close()
		return nil, &TooLarge{Bytes: limit}
	}
	response.Body = &boundBody{ReadCloser: response.Body, limit: limit, left: limit}
	return response, nil
}

// boundBody fails at the first byte past its limit.
type boundBody struct {
	io.ReadCloser
	limit, left int64
}

func (b *boundBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n, err = int(b.left), &TooLarge{Bytes: b.limit}
	}
	b.left -= int64(n)
	return n, err
}
