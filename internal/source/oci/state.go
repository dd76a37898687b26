package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	// Verified is set where the digest was verified, and VerifyKey how.
	Verified  bool   `json:"verified,omitempty"`
	VerifyKey string `json:"verifyKey,omitempty"`
}

const (
	stateVersion = 1
	stateSuffix  = ".json"
	newSuffix    = ".new"
	// mostState is the largest file of a state that is read.
	mostState = 4 << 20
)

// follower is what is known of a request.
type follower struct {
	root *os.Root
	keys keys
	// turn has one place, which is taken while something is fetched.
	turn chan struct{}

	mu sync.Mutex // guards what follows
	// last is what was brought; read is set when it was looked for on the disk.
	last state
	read bool
}

func newFollower(root *os.Root, k keys) *follower {
	return &follower{root: root, keys: k, turn: make(chan struct{}, 1)}
}

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

// state gives what was brought last; its digest is empty where there was nothing. A file
// that is damaged is nothing: what it stood for is fetched again.
func (f *follower) state() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.read {
		return f.last
	}
	f.read = true
	info, err := f.root.Stat(f.keys.request + stateSuffix)
	if err != nil || info.Size() > mostState {
		return state{}
	}
	data, err := f.root.ReadFile(f.keys.request + stateSuffix)
	if err != nil {
		return state{}
	}
	f.last = parseState(data)
	return f.last
}

// parseState reads a state, which is empty where it is not as it was written.
func parseState(data []byte) state {
	var s state
	if err := json.Unmarshal(data, &s); err != nil || s.Version != stateVersion || s.Layer.Digest.Hex == "" {
		return state{}
	}
	return s
}

// store keeps what was brought.
func (f *follower) store(s state) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Version = stateVersion
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	target := f.keys.request + stateSuffix
	temporary := target + newSuffix
	if f.last.Digest == "" {
		temporary = target // There is nothing to be lost by a crash.
	}
	if err := f.root.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("keep what was fetched: %w", errors.Join(err, ignoreMissing(f.root.Remove(temporary))))
	}
	if temporary == target {
		f.last, f.read = s, true
		return nil
	}
	if err := f.root.Rename(temporary, target); err != nil {
		return fmt.Errorf("keep what was fetched: %w", err)
	}
	f.last, f.read = s, true
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
