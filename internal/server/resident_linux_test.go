package server

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is the memory of the program's file that is mapped, in kB.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What is given back is read again where it is needed, also in a program that a loader has
// changed before it ran, as with the race detector.
func TestReleaseProgram(t *testing.T) {
	before := resident(t)
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after >= before {
		t.Errorf("%d kB of files are mapped, %d before", after, before)
	}
	// The lookup goes through the C library where there is one.
	if _, err := os.Hostname(); err != nil {
		t.Error(err)
	}
}
