package parent

import (
	"context"
	"os"
	"testing"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	if err := Watch(t.Context(), os.Getppid()+1); err == nil {
		t.Error("no error though the parent is another process")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Watch(ctx, os.Getppid()); err != nil {
		t.Errorf("the parent is there: %v", err)
	}
}
