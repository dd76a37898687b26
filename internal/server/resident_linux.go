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
// 40 MB. The kernel maps what is needed again from its cache.
//
// Given back are mappings that cannot be written and that hold nothing but the file: what
// a loader has written into one, before it made it read-only, would be lost.
func releaseProgram() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	mappings, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	addresses := "" // of the mapping that is being read, where it is one of these
	for line := range bytes.Lines(mappings) {
		fields := strings.Fields(string(line))
		switch {
		case len(fields) == 6 && fields[5] == program && !strings.Contains(fields[1], "w"):
			addresses = fields[0]
		case len(fields) >= 5:
			addresses = ""
		case addresses != "" && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			if err := giveBack(addresses); err != nil {
				return fmt.Errorf("give back %s: %w", addresses, err)
			}
		}
	}
	return nil
}

// giveBack gives back the memory of a mapping, which is named by its first address and
// the one behind its last.
func giveBack(addresses string) error {
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
