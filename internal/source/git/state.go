package git

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// state is what a store knows beside its packs. It is written as one file, by
// renaming, before anything that it no longer names is removed.
type state struct {
	Version int `json:"version"`
	// Next counts the names of packs.
	Next int `json:"next"`
	// Packs are the packs that belong to the store, oldest first.
	Packs []string `json:"packs"`
	// Tips are the commits that are kept whole, by what they are kept for.
	Tips map[string]tip `json:"tips"`
	// Base is the length of all packs in bytes when they were joined last.
	Base int64 `json:"base"`
	// Stale is set when tips were forgotten since that no other one stands for.
	Stale bool `json:"stale,omitempty"`
}

// tip is a commit that is kept, without its history.
type tip struct {
	// Want is the object that the ref names: the commit, or an annotated tag.
	Want string `json:"want"`
	// Commit is the commit.
	Commit string `json:"commit"`
	// Ref is the ref's name; empty for a commit alone.
	Ref string `json:"ref,omitempty"`
	// Lost are commits that the ref stood for once and that are not behind the
	// present one: what force-pushes threw away, the latest last.
	Lost []string `json:"lost,omitempty"`
	// Paths are those of which the store has the files; where there are none it has all
	// files of the commit. It has all directories in any case.
	Paths []string `json:"paths,omitempty"`
	// Verified are the signatures that were asked for.
	Verified []Verified `json:"verified,omitempty"`
	// Children are the submodules.
	Children []child `json:"children,omitempty"`
}

// whole tells whether the store has all files of the commit.
func (t tip) whole() bool { return len(t.Paths) == 0 }

// covers tells whether the store has the files of some paths of the commit; of all
// where there are none.
func (t tip) covers(paths []string) bool { return t.whole() || slices.Equal(t.Paths, paths) }

// child is a tip of another store.
type child struct {
	Remote string `json:"remote"`
	Tip    string `json:"tip"`
}

const (
	stateFile    = "state.json"
	stateNew     = "state.new"
	stateVersion = 1
	// mostLost is how many commits are remembered as thrown away.
	mostLost = 16
)

func newState() state { return state{Version: stateVersion, Tips: map[string]tip{}} }

func (s state) clone() state {
	s.Version = stateVersion
	s.Packs = slices.Clone(s.Packs)
	s.Tips = maps.Clone(s.Tips)
	if s.Tips == nil {
		s.Tips = map[string]tip{}
	}
	return s
}

// needs tells whether some tip has all that another one has.
func (s state) needs(other tip) bool {
	for _, t := range s.Tips {
		if t.Want == other.Want && t.covers(other.Paths) {
			return true
		}
	}
	return false
}

func readState(dir *os.Root) (state, error) {
	data, err := dir.ReadFile(stateFile)
	if err != nil {
		return state{}, err
	}
	s := newState()
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, err
	}
	if s.Version != stateVersion {
		return state{}, fmt.Errorf("state of version %d", s.Version)
	}
	if s.Tips == nil {
		s.Tips = map[string]tip{}
	}
	return s, nil
}

func writeState(dir *os.Root, s state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := dir.WriteFile(stateNew, data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", errors.Join(err, dir.Remove(stateNew)))
	}
	if err := dir.Rename(stateNew, stateFile); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// clean removes what a killed process left behind.
func clean(dir *os.Root, s state) error {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		if e.Name() == stateFile || slices.Contains(s.Packs, name) {
			continue
		}
		if err := dir.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}
