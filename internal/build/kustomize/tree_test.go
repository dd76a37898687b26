package kustomize_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"sync"
	"testing/fstest"
)

// memoryTree is a gitops.Tree of files in memory. It must not be changed once
// it has been read.
type memoryTree struct {
	fstest.MapFS
	mu   sync.Mutex
	sums map[string]string // guarded by mu
}

func newTree(files map[string]string) *memoryTree {
	t := &memoryTree{MapFS: fstest.MapFS{}, sums: map[string]string{}}
	for name, content := range files {
		t.MapFS[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return t
}

// Sum hashes a file, or a directory with everything below it.
func (t *memoryTree) Sum(name string) (string, error) {
	t.mu.Lock()
	sum, known := t.sums[name]
	t.mu.Unlock()
	if known {
		return sum, nil
	}
	info, err := t.Stat(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if info.IsDir() {
		entries, err := t.ReadDir(name)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			below, err := t.Sum(path.Join(name, e.Name()))
			if err != nil {
				return "", err
			}
			h.Write([]byte(e.Name() + "\x00" + below + "\x00"))
		}
		sum = "dir:" + hex.EncodeToString(h.Sum(nil))
	} else {
		content, err := t.ReadFile(name)
		if err != nil {
			return "", err
		}
		h.Write(content)
		sum = "file:" + hex.EncodeToString(h.Sum(nil))
	}
	t.mu.Lock()
	t.sums[name] = sum
	t.mu.Unlock()
	return sum, nil
}

var _ fs.StatFS = (*memoryTree)(nil)
