package artifact_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// spoil changes a byte of a file, and sets its time.
func spoil(t *testing.T, file string, at time.Time) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(file, data, 0o600))
	must(t, os.Chtimes(file, at, at))
}

func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm func(t *testing.T, file string)
		// want is what is wrong, at a cheap look and at a deep one.
		cheap, deep string
	}{
		"nothing":                   {harm: func(*testing.T, string) {}},
		"touched":                   {harm: func(t *testing.T, file string) { must(t, os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0))) }},
		"gone":                      {harm: func(t *testing.T, file string) { must(t, os.Remove(file)) }, cheap: "is not there", deep: "is not there"},
		"its folder gone":           {harm: func(t *testing.T, file string) { must(t, os.RemoveAll(filepath.Dir(file))) }, cheap: "is not there", deep: "is not there"},
		"cut short":                 {harm: func(t *testing.T, file string) { must(t, os.Truncate(file, 3)) }, cheap: "has 3 bytes, and had", deep: "has 3 bytes, and had"},
		"a byte changed":            {harm: func(t *testing.T, file string) { spoil(t, file, time.Unix(1, 0)) }, cheap: "has digest sha256:", deep: "has digest sha256:"},
		"a byte changed in silence": {harm: func(t *testing.T, file string) { spoil(t, file, modified(t, file)) }, deep: "has digest sha256:"},
		"a folder in its place":     {harm: func(t *testing.T, file string) { must(t, errors.Join(os.Remove(file), os.Mkdir(file, 0o700))) }, cheap: "not a regular file", deep: "not a regular file"},
		"a link in its place": {harm: func(t *testing.T, file string) {
			must(t, errors.Join(os.Rename(file, file+"2"), os.Symlink(filepath.Base(file)+"2", file)))
		}, cheap: "not a regular file", deep: "not a regular file"},
	} {
		for _, deep := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", at a look", true: ", when it is read"}[deep], func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				s := open(t, dir, artifact.Options{})
				tree := sourcetest.Memory(map[string]string{"a": "1"})
				packed, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x", tree)
				must(t, err)
				other, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("other")}, "x", tree)
				must(t, err)
				const path = "/gitrepository/flux-system/app/x"
				test.harm(t, filepath.Join(dir, path))
				want, bytes := test.cheap, 0
				if deep {
					want = test.deep
				}
				var found []string
				must(t, s.Examine(t.Context(), deep, func(n int) error { bytes += n; return nil }, func(of gitops.OwnerRef) { found = append(found, of.Name) }))
				if got := strings.Join(found, " "); got != map[bool]string{true: "app"}[want != ""] {
					t.Errorf("damaged are %q, want %q", got, want)
				}
				if deep != (bytes > 0) && test.cheap == "" && name != "touched" {
					t.Errorf("%d bytes were read", bytes)
				}
				err = s.Check(t.Context(), packed, "x")
				var damaged *artifact.Damaged
				if errors.As(err, &damaged) != (want != "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && want != "" {
					t.Errorf("error %v, want %q", err, want)
				}
				must(t, s.Check(t.Context(), other, "x"))
				if got, want := get(t, s, "GET", path).StatusCode, map[bool]int{true: 404, false: 200}[want != ""]; got != want {
					t.Errorf("status %d, want %d", got, want)
				}
				again, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x", tree)
				must(t, err)
				if again.Digest != packed.Digest {
					t.Errorf("stored again it has digest %s, and had %s", again.Digest, packed.Digest)
				}
				must(t, s.Check(t.Context(), again, "x"))
				must(t, s.Examine(t.Context(), true, func(int) error { return nil }, func(of gitops.OwnerRef) { t.Errorf("%s is damaged after it was stored again", of) }))
				if got := get(t, s, "GET", path).StatusCode; got != 200 {
					t.Errorf("status %d after it was stored again", got)
				}
			})
		}
	}
}

func modified(t *testing.T, file string) time.Time {
	t.Helper()
	info, err := os.Stat(file)
	must(t, err)
	return info.ModTime()
}

func TestExaminationEnds(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), artifact.Options{})
	packed, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x", sourcetest.Memory(map[string]string{"a": "1"}))
	must(t, err)
	never := func(gitops.OwnerRef) { t.Error("what was not read is damaged") }
	enough := errors.New("enough")
	if err := s.Examine(t.Context(), true, func(int) error { return enough }, never); !errors.Is(err, enough) {
		t.Errorf("error %v, want %v", err, enough)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Examine(ctx, true, func(int) error { return nil }, never); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	must(t, s.Check(t.Context(), packed, "x"))
	var damaged *artifact.Damaged
	if err := s.Check(t.Context(), packed, "never"); !errors.As(err, &damaged) {
		t.Errorf("error %v of a file that was never stored", err)
	}
}
