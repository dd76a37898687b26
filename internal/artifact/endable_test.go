package artifact_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// TestEndable reads until the context ends, and nothing after that.
func TestEndable(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	r := artifact.Endable(ctx, strings.NewReader("abcd"))
	if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	end()
	if rest, err := io.ReadAll(r); len(rest) > 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v", rest, err)
	}
}
