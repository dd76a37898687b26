package sourcetest

import (
	"testing"
	"time"
)

// CheckBeside checks that an adapter serves others while the keys of one request are read,
// which may take long. Ask has the adapter open a request, the slow one or another; slow is
// given a function that the adapter has to call while it opens the slow one.
func CheckBeside(t *testing.T, slow func(wait func()), ask func(slow bool) error) {
	t.Helper()
	reading, enough := make(chan struct{}), make(chan struct{})
	slow(func() {
		close(reading)
		<-enough
	})
	slowly, quickly := make(chan error, 1), make(chan error, 1)
	go func() { slowly <- ask(true) }()
	<-reading
	go func() { quickly <- ask(false) }()
	select {
	case err := <-quickly:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("others wait until the keys are read")
	}
	close(enough)
	if err := <-slowly; err != nil {
		t.Error(err)
	}
}
