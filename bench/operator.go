package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// operator is `plumb operator` as a process, with its data folder.
type operator struct {
	plane   *plane
	program string
	flags   []string
	dir     string
	output  *os.File

	// addresses are those of metrics, health and artifacts; chosen at the first start.
	addresses       []string
	metrics, health string
	process         *process
	sampler         *sampler

	// peak is the highest memory, in bytes, and cpu the processor time of all
	// processes so far that have been stopped.
	peak int64
	cpu  time.Duration
}

// newOperator prepares an operator for a control plane; start starts it.
func newOperator(p *plane, program string, flags []string) (*operator, error) {
	o := &operator{plane: p, program: program, flags: flags, dir: filepath.Join(p.dir, "operator")}
	err := os.Mkdir(o.dir, 0o755)
	if err != nil {
		return nil, err
	}
	if o.output, err = os.Create(filepath.Join(o.dir, "log")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(o.dir))
	}
	return o, nil
}

func (o *operator) storage() string { return filepath.Join(o.dir, "data") }

// start starts the process. The data folder is as the last process left it.
func (o *operator) start() error {
	if err := os.MkdirAll(o.storage(), 0o755); err != nil {
		return err
	}
	if o.addresses == nil {
		// They stay through restarts, as those of a Service do.
		var err error
		if o.addresses, err = freeAddresses(3); err != nil {
			return err
		}
	}
	addresses := o.addresses
	o.metrics, o.health = "http://"+addresses[0]+"/metrics", "http://"+addresses[1]+"/readyz"
	args := []string{
		"operator", "--kubeconfig=" + o.plane.kubeconfig, "--storage-path=" + o.storage(),
		"--metrics-addr=" + addresses[0], "--health-addr=" + addresses[1],
		"--storage-addr=" + addresses[2], "--storage-adv-addr=" + addresses[2],
		"--enable-leader-election=false", "--audit-period=0",
	}
	var err error
	if o.process, err = spawn(o.output, o.program, append(args, o.flags...)...); err != nil {
		return err
	}
	o.sampler = sample(o.process)
	return nil
}

// stop ends the process by a signal and keeps what it used.
func (o *operator) stop(signal syscall.Signal) error {
	if o.process == nil {
		return nil
	}
	peak, cpu := o.sampler.end()
	o.peak, o.cpu = max(o.peak, peak), o.cpu+cpu
	err := o.process.stop(signal)
	o.process, o.sampler = nil, nil
	return err
}

// lose removes the data folder.
func (o *operator) lose() error { return os.RemoveAll(o.storage()) }

// close ends the process and removes all that it left.
func (o *operator) close() error {
	return errors.Join(o.stop(syscall.SIGKILL), o.output.Close(), os.RemoveAll(o.dir))
}

// used is the processor time of all processes so far.
func (o *operator) used() time.Duration {
	if o.sampler == nil {
		return o.cpu
	}
	return o.cpu + o.sampler.look().cpu
}

// memory is the highest so far, in bytes.
func (o *operator) memory() int64 {
	if o.sampler == nil {
		return o.peak
	}
	o.sampler.look()
	o.sampler.mu.Lock()
	defer o.sampler.mu.Unlock()
	return max(o.peak, o.sampler.peak)
}

// tail is the end of the operator's log, for an error.
func (o *operator) tail() string {
	data, _ := os.ReadFile(o.output.Name())
	return string(data[max(0, len(data)-4000):])
}

// alive is an error where the process has ended.
func (o *operator) alive() error {
	select {
	case <-o.process.gone:
		return fmt.Errorf("the operator has ended (%v); its last words:\n%s", o.process.cmd.ProcessState, o.tail())
	default:
		return nil
	}
}

// ready waits until the operator says that it is.
func (o *operator) ready(ctx context.Context) error {
	return poll(ctx, time.Minute, "ready operator", func() (bool, error) {
		if err := o.alive(); err != nil {
			return false, err
		}
		response, err := http.Get(o.health)
		if err != nil {
			return false, nil // not listening yet
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK, nil
	})
}

// quietFor is how long nothing may happen before the operator counts as settled.
const quietFor = 2 * time.Second

// settled waits until the operator has sent nothing beside watches and lease for a
// while and used next to no processor time in it. It reports the requests behind
// the mark. Work that goes on for longer than within is an error.
func (o *operator) settled(ctx context.Context, from mark, within time.Duration) (tally, error) {
	total, place, err := o.plane.audit.since(from)
	if err != nil {
		return total, err
	}
	cpu, since := o.used(), time.Now()
	err = poll(ctx, within, "settled operator", func() (bool, error) {
		if err := o.alive(); err != nil {
			return false, err
		}
		more, next, err := o.plane.audit.since(place)
		if err != nil {
			return false, err
		}
		total, place = total.add(more), next
		if more.requests() > 0 {
			cpu, since = o.used(), time.Now()
		}
		if time.Since(since) < quietFor {
			return false, nil
		}
		now := o.used()
		if now-cpu <= quietFor/10 {
			return true, nil
		}
		cpu, since = now, time.Now()
		return false, nil
	})
	return total, err
}

// quiet waits until the operator has sent nothing beside watches and lease for
// the given time, whatever else it does.
func (o *operator) quiet(ctx context.Context, from mark, pause time.Duration) (tally, error) {
	total, place, err := o.plane.audit.since(from)
	if err != nil {
		return total, err
	}
	since := time.Now()
	err = poll(ctx, time.Minute, "quiet operator", func() (bool, error) {
		more, next, err := o.plane.audit.since(place)
		if err != nil {
			return false, err
		}
		total, place = total.add(more), next
		if more.requests() > 0 {
			since = time.Now()
		}
		return time.Since(since) >= pause, nil
	})
	return total, err
}

// builds is how many builds the operator says it has done: not those that it
// answered from memory.
func (o *operator) builds(ctx context.Context) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.metrics, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("read the operator's metrics: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("read the operator's metrics: status %d", response.StatusCode)
	}
	return countBuilds(response.Body)
}

// countBuilds reads plumb_builds_total{outcome="done"}; a counter that nothing
// has counted yet does not exist, which is 0.
func countBuilds(metrics io.Reader) (int, error) {
	lines := bufio.NewScanner(metrics)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), `plumb_builds_total{outcome="done"} `); ok {
			n, err := strconv.ParseFloat(value, 64)
			return int(n), err
		}
	}
	return 0, lines.Err()
}

// freeAddresses are loopback addresses that nobody listens on.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close() // all at the end, so that they differ
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
