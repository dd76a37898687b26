package artifact_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

func TestPackRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a": "12345", "b/c": "1234567890"}
	for name, test := range map[string]struct {
		options artifact.Options
		want    gitops.ErrorKind
	}{
		"as large as is allowed": {artifact.Options{FileBytes: 10, Bytes: 15}, ""},
		"a file too large":       {artifact.Options{FileBytes: 9, Bytes: 15}, gitops.Invalid},
		"too much together":      {artifact.Options{FileBytes: 10, Bytes: 14}, gitops.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, test.options)
			_, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x.tar.gz", sourcetest.Memory(files))
			if test.want == "" {
				must(t, err)
				return
			}
			if gitops.KindOf(err) != test.want {
				t.Errorf("got error %v of kind %q, want %q", err, gitops.KindOf(err), test.want)
			}
			left, err := os.ReadDir(dir + "/gitrepository/flux-system/app")
			must(t, err)
			if len(left) > 0 {
				t.Errorf("%v is left behind", left)
			}
		})
	}
}

// endless is a tree whose file takes ever longer to read.
type endless struct {
	gitops.Tree
	read func()
}

// Open opens a file.
func (e endless) Open(name string) (fs.File, error) {
	file, err := e.Tree.Open(name)
	return endlessFile{file, e.read}, err
}

type endlessFile struct {
	fs.File
	read func()
}

// Read gives a byte.
func (f endlessFile) Read(to []byte) (int, error) {
	f.read()
	return f.File.Read(to[:min(1, len(to))])
}

// TestPackEndsWithinAFile: a huge file must not keep a packing going on.
func TestPackEndsWithinAFile(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	tree := endless{sourcetest.Memory(map[string]string{"a": "1234567890"}), func() { reads++; cancel() }}
	_, err := open(t, t.TempDir(), artifact.Options{}).Pack(ctx, gitops.Artifact{Source: ownerOf("app")}, "x.tar.gz", tree)
	if !errors.Is(err, context.Canceled) || reads != 1 {
		t.Errorf("got error %v after %d reads, want the end after the first", err, reads)
	}
}
