package server

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// releaseProgram gives back the memory of those parts of the program's own file that only
// its start has needed: tables that were read once, and the code that read them, some
// 40 MB. The kernel maps what is needed again from its cache. Only read-only mappings of
// the file are given back, so that nothing is lost.
func releaseProgram() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		fields := strings.Fields(string(line))
		if len(fields) != 6 || fields[5] != program || strings.Contains(fields[1], "w") {
			continue
		}
		if err := release(fields[0]); err != nil {
			return fmt.Errorf("give back %s: %w", fields[0], err)
		}
	}
	return nil
}

// release gives back the memory of a mapping, which is named by its first address and
// the one behind its last.
func release(addresses string) error {
	first, end, _ := strings.Cut(addresses, "-")
	from, err := strconv.ParseUint(first, 16, 64)
	if err != nil {
		return err
	}
	to, err := strconv.ParseUint(end, 16, 64)
	if err != nil {
		return err
	}
	start := uintptr(from)
	mapping := unsafe.Slice(*(**byte)(unsafe.Pointer(&start)), to-from) //nolint:gosec // it is not read
	return unix.Madvise(mapping, unix.MADV_DONTNEED)
}
