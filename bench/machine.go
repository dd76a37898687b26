package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is what must be known to read the seconds of a run.
type machine struct {
	Cores      int     `json:"cores"`
	Processor  string  `json:"processor"`
	MemoryMiB  int64   `json:"memoryMiB"`
	System     string  `json:"system"`
	Go         string  `json:"go"`
	Git        string  `json:"git"`
	Kubernetes string  `json:"kubernetes"`
	Plumb      string  `json:"plumb"`
	Load       float64 `json:"loadBefore"`
}

func describeMachine(plumb string) machine {
	return machine{
		Cores:     runtime.NumCPU(),
		Processor: field("/proc/cpuinfo", "model name"),
		MemoryMiB: kib(field("/proc/meminfo", "MemTotal")) / 1024,
		System:    runtime.GOOS + "/" + runtime.GOARCH + " " + firstLine("/proc/sys/kernel/osrelease"),
		Go:        runtime.Version(),
		Git:       output("git", "--version"),
		Plumb:     output(plumb, "version"),
		Load:      loadAverage(),
	}
}

// loadAverage is that of the last minute, 0 where it cannot be read.
func loadAverage() float64 {
	first, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// processors is what the machine's processors have done since some time before.
type processors struct {
	// busy is the time of all programs, own that of the benchmark and of what it
	// started and has seen end, and stolen that of other guests of the machine.
	busy, own, stolen time.Duration
}

// readProcessors is all zero but for own where there is no /proc.
func readProcessors() processors {
	var p processors
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var used syscall.Rusage
		if syscall.Getrusage(who, &used) == nil {
			p.own += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
	}
	fields := strings.Fields(firstLine("/proc/stat"))
	if len(fields) < 9 {
		return p
	}
	for i, text := range fields[1:9] {
		n, _ := strconv.ParseInt(text, 10, 64)
		switch i {
		case 3, 4: // idle, waiting for a disk
		case 7:
			p.stolen = time.Duration(n) * ticks
		default:
			p.busy += time.Duration(n) * ticks
		}
	}
	return p
}

// sharesSince are the shares of all processors, in a time that has passed since an
// earlier reading, that other programs and other guests took.
func (p processors) sharesSince(earlier processors, passed time.Duration) (foreign, stolen float64) {
	all := float64(passed) * float64(runtime.NumCPU())
	foreign = float64((p.busy-earlier.busy)-(p.own-earlier.own)) / all
	return max(0, foreign), float64(p.stolen-earlier.stolen) / all
}

func firstLine(path string) string {
	data, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// field is the value behind a name and a colon in a file of lines.
func field(path, name string) string {
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kib(text string) int64 {
	first, _, _ := strings.Cut(text, " ")
	n, _ := strconv.ParseInt(first, 10, 64)
	return n
}

// output is the first line that a program prints, "unknown" where it cannot run.
func output(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
