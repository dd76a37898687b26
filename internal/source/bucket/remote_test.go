package bucket

import (
	"crypto/sha256"
	"testing"
)

// TestFailedPlacesAreNoUse: a content that could not be put into its place is not kept for
// anybody.
func TestFailedPlacesAreNoUse(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, of := newRemote(s, "bucket", &connection{}), sum(sha256.Sum256(nil))
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.fetchBegins()
	place := func(lost bool) error {
		file, name, err := r.create()
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		if lost {
			if err := r.dir.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		return r.place(name, of)
	}
	for i, test := range []struct {
		lost bool
		uses int
	}{{true, 0}, {false, 1}, {true, 1}, {false, 2}} {
		if err := place(test.lost); (err != nil) != test.lost || r.uses[of] != test.uses {
			t.Errorf("place %d: %d uses and error %v, want %d", i, r.uses[of], err, test.uses)
		}
	}
}

// TestOpenedTwiceCountsOnce: where a folder could not be opened to the end, what was read of
// it is read again, and counts as before.
func TestOpenedTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first, of := newRemote(s, "bucket", &connection{}), sum(sha256.Sum256(nil))
	must(first.open())
	file, name, err := first.create()
	must(err)
	must(file.Close())
	must(first.place(name, of))
	follow(t, first, "1", []entry{{key: "a", sum: of}})
	first.close()

	r := newRemote(s, "bucket", &connection{})
	root, contents := s.folder.Root(), "bucket/"+contentsFolder
	must(root.Rename(contents, "aside"))
	must(root.WriteFile(contents, nil, 0o600))
	if err := r.open(); err == nil {
		t.Error("a folder without contents is open")
	}
	must(root.Remove(contents))
	must(root.Rename("aside", contents))
	must(r.open())
	defer r.close()
	must(r.open())
	defer r.change()()
	if uses := r.count()[of]; uses != 1 || r.views["v"].current == nil {
		t.Errorf("%d uses", uses)
	}
}
