// Package parent ends this process when the process that started it is gone,
// however it went: a parent that is killed can tell nobody.
//
// The parent is watched by asking for its process id, which works alike on
// Linux and macOS. Linux' own "signal on parent death" is not used: it fires
// when the parent's thread ends, not when the parent does, and a Go program
// cannot promise that the thread that started a child stays.
package parent

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Every is the time between two looks at the parent.
const Every = 200 * time.Millisecond

// Watch returns nil when ctx ends, and an error once the parent of this process
// is no longer pid. It looks at once, so that a parent that died before the
// first look is noticed when the caller learned pid from the parent itself.
func Watch(ctx context.Context, pid int) error {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		if now := os.Getppid(); now != pid {
			return fmt.Errorf("the parent process %d is gone", pid)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
