package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// state is what a Fetch brought last for a request.
type state struct {
	Version  int    `json:"version"`
	Revision string `json:"revision"`
	// Digest is that of the manifest that was asked for, an index maybe.
	Digest string `json:"digest"`
	// Layer is the layer that is shown.
	Layer v1.Descriptor `json:"layer"`
	// Annotations are those of the manifest.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Verified is set where the digest was verified, VerifyKey says how, and By by what.
	Verified  bool   `json:"verified,omitempty"`
	VerifyKey string `json:"verifyKey,omitempty"`
	By        string `json:"by,omitempty"`
}

const stateVersion = 1

// follower is what is under way for a request.
type follower struct {
	keys keys
	// turn has one place, which is taken while something is fetched.
	turn chan struct{}
}

func newFollower(k keys) *follower { return &follower{keys: k, turn: make(chan struct{}, 1)} }

// lock takes the turn, unless the context ends first.
func (f *follower) lock(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *follower) unlock() { <-f.turn }

// journal keeps the states of all requests in one file, to which each new one is added: to
// make a file for each costs more than to fetch what it is about. The last one of a request
// holds. A line that a crash has cut off is as if it had not been written.
type journal struct {
	root *os.Root

	mu     sync.Mutex // guards what follows
	states map[string]state
	file   *os.File
	// size is the length of the file, and fresh what it was when it was written anew.
	size, fresh int64
}

const (
	journalFile = "states"
	journalNew  = "states.new"
	// mostJournal is the largest file that is read; what is beyond is fetched again.
	mostJournal = 1 << 30
	// mostLine is the longest line: a manifest's annotations, and what is written for them.
	mostLine = 4 << 20
	// slack is how much longer the file may be than twice what it was, in bytes.
	slack = 1 << 20
)

// line is one of a journal.
type line struct {
	Request string `json:"request"`
	state
}

func openJournal(root *os.Root) (*journal, error) {
	j := &journal{root: root, states: map[string]state{}}
	old, err := root.Open(journalFile)
	if err == nil {
		lines := bufio.NewScanner(io.LimitReader(old, mostJournal))
		lines.Buffer(nil, mostLine)
		for lines.Scan() {
			if request, s, ok := parseLine(lines.Bytes()); ok {
				j.states[request] = s
			}
		}
		_ = old.Close() // It was only read.
		if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return j, j.rewrite()
}

// parseLine reads a line; it is false where it is not as it was written.
func parseLine(data []byte) (request string, s state, ok bool) {
	var l line
	if err := json.Unmarshal(data, &l); err != nil || l.Version != stateVersion || l.Request == "" || l.Layer.Digest.Hex == "" {
		return "", state{}, false
	}
	return l.Request, l.state, true
}

func (l line) text() ([]byte, error) {
	data, err := json.Marshal(l)
	return append(data, '\n'), err
}

// state gives what was brought last for a request; its digest is empty where there was
// nothing.
func (j *journal) state(request string) state {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.states[request]
}

// store keeps what was brought for a request.
func (j *journal) store(request string, s state) error {
	text, err := line{request, s}.text()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// What a full disk has cut off must not spoil the next line.
	n, err := j.file.WriteAt(text, j.size)
	if err != nil {
		return fmt.Errorf("keep what was fetched: %w", err)
	}
	j.size += int64(n)
	j.states[request] = s
	if j.size > 2*j.fresh+slack {
		_ = j.rewrite() // Where that fails the old file holds, and it is tried again.
	}
	return nil
}

// retain forgets all requests but some.
func (j *journal) retain(wanted map[string]bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := len(j.states)
	maps.DeleteFunc(j.states, func(request string, _ state) bool { return !wanted[request] })
	if len(j.states) == before {
		return nil
	}
	return j.rewrite()
}

// rewrite writes the states that hold into a new file. The caller has the mutex.
func (j *journal) rewrite() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep what was fetched: %w", err)
		}
	}()
	file, err := j.root.OpenFile(journalNew, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	size := int64(0)
	for request, s := range j.states {
		text, err := line{request, s}.text()
		if err != nil {
			return errors.Join(err, file.Close())
		}
		size += int64(len(text))
		_, _ = out.Write(text) // Flush has the error.
	}
	if err := errors.Join(out.Flush(), j.root.Rename(journalNew, journalFile)); err != nil {
		return errors.Join(err, file.Close())
	}
	err = j.close()
	j.file, j.size, j.fresh = file, size, size
	return err
}

// close closes the file. The caller has the mutex, or is the last one.
func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
