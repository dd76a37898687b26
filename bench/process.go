package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopWithin is how long a program may take to end after a signal before it is
// killed.
const stopWithin = 10 * time.Second

// process is a program that the benchmark started, with everything that it
// starts itself.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{}
}

// spawn starts a program in a process group of its own. Its output goes to the
// given file.
func spawn(output *os.File, program string, args ...string) (*process, error) {
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", program, err)
	}
	p := &process{cmd: cmd, gone: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.gone)
	}()
	return p, nil
}

// stop sends a signal to the program and waits for its end, then kills what is
// left of its process group.
func (p *process) stop(signal syscall.Signal) error {
	var late error
	select {
	case <-p.gone:
	default:
		_ = p.cmd.Process.Signal(signal) // it may have ended just now
		select {
		case <-p.gone:
		case <-time.After(stopWithin):
			late = fmt.Errorf("%s was still there %v after signal %v", p.cmd.Path, stopWithin, signal)
		}
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		late = errors.Join(late, err)
	}
	<-p.gone
	return late
}

// usage is what a program with its children has used.
type usage struct {
	// cpu is the processor time of the program, its children that are gone and
	// those that still run.
	cpu time.Duration
	// resident is the sum of the resident memory of all, in bytes.
	resident int64
	// peak is the highest resident memory of the program alone, as the kernel
	// kept it, in bytes.
	peak int64
}

// ticks is the unit of times in /proc: a hundredth of a second on all of Linux.
const ticks = 10 * time.Millisecond

// used reads what the program has used so far. It needs /proc.
func (p *process) used() (usage, error) {
	var total usage
	root := p.cmd.Process.Pid
	for _, pid := range append([]int{root}, descendants(root)...) {
		fields, err := statFields(pid)
		if err != nil {
			if pid == root {
				return usage{}, err
			}
			continue // a child that has ended; its parent has its time now
		}
		// Fields 14 to 17 of stat(5): user, system, and those of waited-for children.
		for _, field := range fields[11:15] {
			n, _ := strconv.ParseInt(field, 10, 64)
			total.cpu += time.Duration(n) * ticks
		}
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		total.resident += pages * int64(os.Getpagesize())
	}
	peak, err := peakMemory(root)
	total.peak = peak
	return total, err
}

// statFields are those of /proc/PID/stat behind the program's name; the first is
// field 3 of the manual page.
func statFields(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// descendants are all processes below one.
func descendants(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var below []int
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			below = append(append(below, child), descendants(child)...)
		}
	}
	return below
}

// peakMemory is VmHWM of a process, in bytes.
func peakMemory(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// sampler follows the memory of a process until it is stopped.
type sampler struct {
	process *process
	done    chan struct{}
	wg      sync.WaitGroup

	mu   sync.Mutex // guards what follows
	peak int64
	last usage
}

// sampleEvery is short enough to see a child that lives for a tenth of a second
// and long enough to cost nothing.
const sampleEvery = 50 * time.Millisecond

func sample(p *process) *sampler {
	s := &sampler{process: p, done: make(chan struct{})}
	s.wg.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-s.done:
				return
			case <-tick.C:
				s.look()
			}
		}
	})
	return s
}

// look takes one sample and returns the newest one that could be taken.
func (s *sampler) look() usage {
	now, err := s.process.used()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.last = now
		s.peak = max(s.peak, now.peak, now.resident)
	}
	return s.last
}

// end stops the sampling, before the process is stopped, and returns the highest
// memory that was seen, in bytes, and the processor time.
func (s *sampler) end() (peak int64, cpu time.Duration) {
	last := s.look()
	close(s.done)
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak, last.cpu
}
