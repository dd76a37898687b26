package gitsign

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestAmbiguousObjects: all of these have a signature that is right for the bytes that
// some reader would take.
func TestAmbiguousObjects(t *testing.T) {
	t.Parallel()
	s := newSSHSigner(t)
	keys := keysOf(t, s.entries())
	const (
		tree      = "tree aaff74984cccd156a469afa7d9ab10e4777beb24\n"
		otherTree = "tree baff74984cccd156a469afa7d9ab10e4777beb24\n"
		parent    = "parent fa3b120355e3f8f453b726987d715664c5fef1ff\n"
		author    = "author Ann <ann@example.com> 1795669624 +0000\n"
		committer = "committer Ann <ann@example.com> 1795669624 +0000\n"
		object    = "object 3f945602ba1356f35975fde7807f3617162669e3\n"
		end       = "\nmessage\n"
	)
	commit := func(payload string) []byte { return attach(payload, s.sign(t, payload)) }
	folded := "gpgsig " + strings.ReplaceAll(strings.TrimSuffix(s.sign(t, unsignedCommit), "\n"), "\n", "\n ") + "\n"
	signature := s.sign(t, unsignedTag)
	for name, test := range map[string]struct {
		object []byte
		word   string
	}{
		"a commit":                             {commit(unsignedCommit), ""},
		"a commit with an encoding":            {commit(tree + author + committer + "encoding ISO-8859-1\n" + end), ""},
		"a commit with a header of others":     {commit(tree + author + committer + "HG:extra x\n" + end), ""},
		"a commit with carriage returns below": {commit(tree + author + committer + "\na\r\nb\r\n"), ""},
		"a signature that ends in empty lines": {bytes.Replace(commit(unsignedCommit), []byte("-----END SSH SIGNATURE-----\n"), []byte("-----END SSH SIGNATURE-----\n \n"), 1), ""},
		"two trees":                            {commit(tree + otherTree + author + committer + end), `2 times "tree"`},
		"two trees, apart":                     {commit(tree + author + committer + otherTree + end), `"tree" where Git`},
		"no tree":                              {commit(parent + author + committer + end), "neither a commit nor a tag"},
		"a tree of another form":               {commit(strings.ToUpper(tree[5:]) + author), "neither a commit nor a tag"},
		"a tree in capitals":                   {commit("tree AAFF74984CCCD156A469AFA7D9AB10E4777BEB24\n" + author + committer + end), "not the name of an object"},
		"a parent in the wrong place":          {commit(tree + author + parent + committer + end), `0 times "committer"`},
		"two authors":                          {commit(tree + author + author + committer + end), `2 times "author"`},
		"no committer":                         {commit(tree + author + end), `0 times "committer"`},
		"an author of two lines":               {commit(tree + strings.TrimSuffix(author, "\n") + "\n x\n" + committer + end), "several lines"},
		"two encodings":                        {commit(tree + author + committer + "encoding a\nencoding b\n" + end), "several encodings"},
		"a carriage return in the header":      {commit(strings.Replace(unsignedCommit, "+0000\n", "+0000\r\n", 1)), "carriage return"},
		"carriage returns everywhere":          {[]byte(strings.ReplaceAll(string(commit(unsignedCommit)), "\n", "\r\n")), "no end"},
		"a zero byte in the header":            {commit(strings.Replace(unsignedCommit, "Ann", "A\x00n", 1)), "zero byte"},
		"a header without an end":              {[]byte(tree + parent + author + committer + folded), "no end"},
		"a line that is no header":             {commit(tree + author + committer + "x\n" + end), "a line that is none"},
		"a header that begins with a space":    {[]byte("tree " + strings.Repeat("a", 40) + "\n" + folded[7:] + "\n"), ""},
		"two signatures":                       {bytes.Replace(commit(unsignedCommit), []byte("gpgsig "), []byte(folded+"gpgsig "), 1), "several signatures"},
		"two signatures in one":                {bytes.Replace(commit(unsignedCommit), []byte("\n -----END"), []byte("\n -----BEGIN SSH SIGNATURE-----\n -----END"), 1), "exactly one signature"},
		"one more for another repository":      {bytes.Replace(commit(unsignedCommit), []byte("gpgsig "), []byte("gpgsig-sha256 x\ngpgsig "), 1), "another kind of repository"},
		"only one for another repository":      {bytes.Replace(commit(unsignedCommit), []byte("gpgsig "), []byte("gpgsig-sha256 "), 1), "another kind of repository"},
		"a signature above the tree":           {[]byte(folded + unsignedCommit), "neither a commit nor a tag"},
		"a signature before the committer":     {[]byte(strings.Replace(unsignedCommit, "committer", folded+"committer", 1)), `0 times "committer"`},
		"a signature in the message":           {[]byte(unsignedCommit + s.sign(t, unsignedCommit)), "is not signed"},
		"something behind the signature":       {bytes.Replace(commit(unsignedCommit), []byte("-----END SSH SIGNATURE-----\n"), []byte("-----END SSH SIGNATURE-----\n x\n"), 1), "something behind"},
		"a header longer than any":             {commit(tree + author + committer + "x " + strings.Repeat("x", longestHeader) + "\n" + end), "more than"},
		"very many parents":                    {commit(tree + strings.Repeat(parent, mostParents+1) + author + committer + end), "times \"parent\""},
		"an unsigned commit":                   {[]byte(unsignedCommit), "the commit is not signed"},
		"nothing":                              {nil, "neither a commit nor a tag"},
		"a tag":                                {attach(unsignedTag, signature), ""},
		"an unsigned tag":                      {[]byte(unsignedTag), "the tag is not signed"},
		"a tag without a tagger":               {commit(object + "type commit\ntag v1\n" + end), ""},
		"a tag without a text":                 {commit(object + "type commit\ntag v1\n\n"), ""},
		"two objects":                          {commit(object + object + "type commit\ntag v1\n" + end), `2 times "object"`},
		"an object behind":                     {commit(object + "type commit\ntag v1\n" + object + end), "does not write"},
		"two names":                            {commit(object + "type commit\ntag v1\ntag v2\n" + end), `2 times "tag"`},
		"no name":                              {commit(object + "type commit\n" + end), `0 times "tag"`},
		"a tag with another header":            {commit(object + "type commit\ntag v1\nx y\n" + end), "does not write"},
		"a tag with two signatures":            {[]byte(unsignedTag + signature + signature), "several signatures"},
		"a tag with something behind":          {[]byte(unsignedTag + signature + "more\n"), "something behind"},
		"a tag with carriage returns":          {[]byte(unsignedTag + strings.ReplaceAll(signature, "\n", "\r\n")), "carriage return"},
		"a signed text in the text":            {commit(unsignedTag + "-----BEGIN PGP MESSAGE-----\n"), "several signatures"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := ""
			if test.word == "" {
				want = ssh.FingerprintSHA256(s.key.PublicKey())
			}
			if name == "a header that begins with a space" {
				want, test.word = "", "commit"
			}
			check(t, keys, test.object, want, test.word)
		})
	}
	var unsigned interface{ Unsigned() bool }
	if err := second(keys.Verify([]byte(unsignedTag))); !errors.As(err, &unsigned) || !unsigned.Unsigned() {
		t.Errorf("error %v does not tell that there is no signature", err)
	}
}

func FuzzVerify(f *testing.F) {
	entries := map[string][]byte{}
	for _, file := range must(filepath.Glob("testdata/*"))(f) {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".asc") || strings.HasSuffix(name, ".sshpub") {
			entries[name] = data(f, name)
		} else if !strings.Contains(name, "fuzz") {
			f.Add(data(f, name))
		}
	}
	f.Add([]byte(unsignedCommit))
	f.Add([]byte(unsignedTag))
	keys := keysOf(f, entries)
	var payloads [][]byte
	for _, file := range must(filepath.Glob("testdata/*.*"))(f) {
		if strings.HasSuffix(file, ".commit") || strings.HasSuffix(file, ".tag") {
			payloads = append(payloads, mustParse(f, must(os.ReadFile(file))(f)).payload)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if signer, err := keys.Verify(raw); err == nil {
			payload := mustParse(t, raw).payload
			if !slices.ContainsFunc(payloads, func(known []byte) bool { return bytes.Equal(known, payload) }) {
				t.Errorf("taken as signed by %s, which never signed it: %q", signer, raw)
			}
		}
	})
}

func FuzzReadKeys(f *testing.F) {
	f.Add(data(f, "pgp-rsa.asc"), data(f, "ssh-rsa.sshpub"))
	f.Add([]byte("-----BEGIN PGP"), []byte("a@b ssh-rsa AAAA"))
	f.Fuzz(func(t *testing.T, pgp, ssh []byte) {
		keys, err := ReadKeys(map[string][]byte{"a": pgp, "a.sshpub": ssh})
		if (keys == nil) == (err == nil) {
			t.Errorf("keys %v, error %v", keys, err)
		}
	})
}
