package source

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// Folder is where an adapter keeps what it has fetched, with a folder below it for each
// remote as one credential sees it. It is for one process at a time.
//
// Names are made with a secret that is kept in the folder: they are the same after a
// restart, and say nothing of a credential to whoever sees them. Where the secret is lost
// or damaged there is a new one, and what was kept is fetched again.
type Folder struct {
	root   *os.Root
	secret []byte

	mu sync.Mutex
	// uses say for whom the folders below count; guarded by mu.
	uses map[string]*uses
}

const secretFile = "key"

// OpenFolder opens the folder at a path, which is made where it is missing. What says for
// messages whose it is: "git store".
func OpenFolder(path, what string) (*Folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open %s: %w", what, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", what, err)
	}
	secret, err := readSecret(root)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", what, errors.Join(err, root.Close()))
	}
	return &Folder{root: root, secret: secret, uses: map[string]*uses{}}, nil
}

func readSecret(root *os.Root) ([]byte, error) {
	secret, err := root.ReadFile(secretFile)
	if err == nil && len(secret) == sha256.Size {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	secret = make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	return secret, root.WriteFile(secretFile, secret, 0o600)
}

// Root is the folder itself. It is closed by Close.
func (f *Folder) Root() *os.Root { return f.root }

// Name makes a name of some parts, 32 characters long, from which they cannot be guessed.
// Other parts make another name, also where they are the same text when joined. Data
// folders of earlier versions have these names: the way they are made must not change.
func (f *Folder) Name(parts ...string) string {
	mac := hmac.New(sha256.New, f.secret)
	for _, part := range parts {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Measure charges namespaces with the folders below that they use.
func (f *Folder) Measure(charge func(namespace string, bytes int64)) error {
	f.mu.Lock()
	used := slices.Collect(maps.Keys(f.uses))
	f.mu.Unlock()
	for _, name := range used {
		total, err := artifact.Size(f.root.FS(), name)
		if err != nil {
			return err
		}
		f.mu.Lock()
		charges := map[string]int64{}
		if u := f.uses[name]; u != nil {
			charges = u.split(total)
		}
		f.mu.Unlock()
		for namespace, bytes := range charges {
			charge(namespace, bytes)
		}
	}
	return nil
}

// Sweep removes the folders below that are not to be kept, with all that is in them. Files
// stay. What cannot be removed keeps nothing else from being removed.
func (f *Folder) Sweep(keep func(name string) bool) error {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() && !keep(e.Name()) {
			errs = append(errs, f.root.RemoveAll(e.Name()))
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Of what cannot be reached there never was a folder.
	maps.DeleteFunc(f.uses, func(name string, _ *uses) bool { return !keep(name) })
	return errors.Join(errs...)
}

// Close closes the folder, on which all is an error from then on.
func (f *Folder) Close() error { return f.root.Close() }
