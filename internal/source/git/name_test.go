package git

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for name, valid := range map[string]bool{
		"a": true, ".gitignore": true, ".gitmodules": true, ".github": true, "git": true, "a b. ": true, "git~10": true, "x:y": true,
		`a\x2db`: true, "..a": true, "...": true, "ä": true, ".g\u00edt": true,
		"": false, ".": false, "..": false, "a/b": false, "/": false, ".git": false, ".gIt": false, ".git ": false, ".git. .": false,
		"git~1": false, "Git~1 ": false, ".gi\u200ft": false, ".git:x": false, ".git \u200c": false,
	} {
		if err := checkName(name); (err == nil) != valid {
			t.Errorf("%q: error %v, valid is %v", name, err, valid)
		}
	}
}

// TestStoresOfTheLastVersion has a name of a store from before there were logins: it is
// found again. A login has a store of its own.
func TestStoresOfTheLastVersion(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i)
	}
	if err := os.WriteFile(filepath.Join(folder, "key"), secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	request := Request{
		URL: "https://example.com/app", Auth: wire.Auth{Username: "ann", Password: "s3cret", CA: []byte("CA")},
		Proxy: Proxy{Address: "http://proxy"},
	}
	const want = "50f8279e2850a1348e6b50aedf3d7bb0"
	if got := s.key(request); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	request.Auth.LoginName = "app 1"
	one := s.key(request)
	request.Auth.LoginName = "app 2"
	if two := s.key(request); one == want || two == want || one == two {
		t.Errorf("names %s and %s of logins, %s of none", one, two, want)
	}
}

// TestRefsOfServersAreNotFollowed: what a server calls its refs leads nowhere.
func TestRefsOfServersAreNotFollowed(t *testing.T) {
	t.Parallel()
	id := pack.ID{1}
	refs := []wire.Ref{
		{Name: "refs/tags/../../v9.0.0", ID: pack.ID{9}}, {Name: "refs/tags/v8.0.0/../x", ID: pack.ID{9}}, {Name: "refs/tags/v7.0.0-../x", ID: pack.ID{9}},
		{Name: "refs/tags/v6.0.0\x00", ID: pack.ID{9}}, {Name: "refs/tags/v1.0.0", ID: id}, {Name: "refs/heads/../../../x", ID: pack.ID{9}},
	}
	found, ok := Ref{SemVer: ">=0"}.choose(refs)
	if !ok || found.want != id || found.name != "refs/tags/v1.0.0" {
		t.Errorf("got %+v, %v", found, ok)
	}
	for _, ref := range []Ref{{Branch: "../../../x"}, {Tag: "../../v9.0.0"}, {Name: "refs/heads/../../../x"}, {Branch: "a b"}, {Tag: "x^{}"}} {
		if err := ref.check(); err == nil {
			t.Errorf("%s is looked for", ref)
		}
	}
}

func TestModules(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want []module
		ok   bool
	}{
		"a name that leads out is no path": {"[submodule \"../../x\"]\npath = x\nurl = ../y\n", []module{{"x", "../y"}}, true},
		"a path that leads out":            {"[submodule \"x\"]\npath = ../../x\nurl = ../y\n", nil, false},
		"a path from the root":             {"[submodule \"x\"]\npath = /etc\nurl = ../y\n", nil, false},
		"the root itself":                  {"[submodule \"x\"]\npath = .\nurl = ../y\n", nil, false},
		"quotes and comments":              {"[submodule \"x\"]\n path=\"a # b\" # c\n url = ../y ; d\n", []module{{"a # b", "../y"}}, true},
		"other sections":                   {"[core]\npath = x\nurl = y\n[submodule \"x\"]\nurl = ../y\n", nil, true},
	} {
		got, err := parseModules(test.text)
		if (err == nil) != test.ok || err == nil && len(got) != len(test.want) || len(got) > 0 && got[0] != test.want[0] {
			t.Errorf("%s: got %v, error %v", name, got, err)
		}
	}
}

// FuzzObjects: whatever the bytes of an object are, no name leads out of its directory,
// and what is read of a commit is what is written there once.
func FuzzObjects(f *testing.F) {
	id := strings.Repeat("ab", 20)
	f.Add([]byte("tree " + id + "\nparent " + id + "\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 -0130\ngpgsig x\n y\n\nmessage"))
	f.Add([]byte("object " + id + "\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nmessage"))
	f.Add([]byte("100644 a\x00" + strings.Repeat("x", 20) + "40000 b\x00" + strings.Repeat("y", 20)))
	f.Add([]byte("100644 .git\x00" + strings.Repeat("x", 20)))
	f.Add([]byte("author > 1 < +0000\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := parseCommit(pack.ID{}, data); err == nil {
			if !bytes.Contains(data, []byte("tree ")) || c.tree.IsZero() {
				t.Errorf("a commit without a tree: %q", data)
			}
			_ = c.Author.String()
			_ = firstLine(c.Message)
		}
		if object, err := parseTag(pack.ID{}, data); err == nil && object.IsZero() {
			t.Errorf("a tag without an object: %q", data)
		}
		_ = tagName(data)
		entries, err := parseTree(pack.ID{}, data)
		for _, e := range entries {
			if err == nil && checkName(e.name) != nil {
				t.Errorf("an entry called %q", e.name)
			}
		}
	})
}

// FuzzModules: no path of a submodule leads out, and no URL is other than of a network.
func FuzzModules(f *testing.F) {
	f.Add("[submodule \"x\"]\n\tpath = a/b\n\turl = ../y\n")
	f.Add("[submodule \"x\"]\npath = \"..\\\\/x\"\nurl = ext::sh -c x\n")
	f.Add("[submodule \"x\"]\npath = x\nurl = host:path # y\n")
	f.Fuzz(func(t *testing.T, text string) {
		modules, err := parseModules(text)
		if err != nil {
			return
		}
		base, err := parseURL("https://host/org/app")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range modules {
			if m.path == "" || m.path == "." || strings.HasPrefix(m.path, "/") || strings.Contains("/"+m.path+"/", "/../") {
				t.Errorf("a submodule at %q", m.path)
			}
			u, err := submoduleURL(base, m.url)
			if err != nil {
				continue
			}
			if u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "ssh" || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
				t.Errorf("a submodule from %q", u)
			}
		}
	})
}
