package kustomize

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"index/suffixarray"
	"path"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// secrets are the encrypted files of one build.
type secrets struct {
	// keys opens them; nil leaves every file as it is.
	keys build.Keyring
	// uses are the files that are decrypted if they are encrypted.
	uses map[string]build.EncryptedFile
	// opened are those that were.
	opened map[string]bool
	// values are what was encrypted in them, contents all that is in them now.
	values, contents []string
	// marks are the forms in which values can be in an object; made when needed.
	marks [][]byte
}

// shortest is the length from which on a value, or a part of one, can be told from
// other text.
const shortest = 4

// mostValues is how many values of a build are looked for in its objects. Where there
// are more, every object counts as one that holds some: that costs nothing.
const mostValues = 500

// expect notes that a file is to be decrypted. One that was read before is opened
// and looked at again: what reads it next gets the plain text.
func (s *snapshotFS) expect(name string, use build.EncryptedFile) error {
	if _, known := s.secrets.uses[name]; known || s.secrets.keys == nil || path.IsAbs(name) {
		return nil
	}
	if s.secrets.uses == nil {
		s.secrets.uses = map[string]build.EncryptedFile{}
	}
	s.secrets.uses[name] = use
	content, read := s.read[name]
	if !read {
		return nil
	}
	plain, err := s.open(name, content)
	if err != nil || !s.secrets.opened[name] {
		return err
	}
	s.read[name] = plain
	return s.inspect(name, plain)
}

// open decrypts what was read of a file, where it is one to be decrypted.
func (s *snapshotFS) open(name string, content []byte) ([]byte, error) {
	use, expected := s.secrets.uses[name]
	if !expected {
		return content, nil
	}
	use.Content = content
	opened, encrypted, err := s.secrets.keys.File(s.ctx, use)
	if err != nil {
		return nil, s.fail(build.CannotDecrypt(gitops.Origin{File: name}, gitops.ObjectRef{}, err))
	}
	if !encrypted {
		return content, nil
	}
	if s.secrets.opened == nil {
		s.secrets.opened = map[string]bool{}
	}
	s.secrets.opened[name] = true
	s.secrets.values = append(s.secrets.values, opened.Values...)
	s.secrets.contents = append(s.secrets.contents, string(opened.Content))
	s.secrets.marks = nil
	return opened.Content, nil
}

// in tells whether an object, as JSON, holds a value that was decrypted.
func (s *secrets) in(object []byte) bool {
	if len(s.values) > mostValues {
		return true
	}
	if s.marks == nil {
		for _, value := range slices.Concat(s.values, s.contents) {
			if len(value) < shortest {
				continue
			}
			quoted, _ := json.Marshal(value) // A string has a form in JSON.
			s.marks = append(s.marks, quoted[1:len(quoted)-1], []byte(base64.StdEncoding.EncodeToString([]byte(value))))
		}
	}
	for _, mark := range s.marks {
		if bytes.Contains(object, mark) {
			return true
		}
	}
	return false
}

// conceal masks what an error quotes of decrypted values.
func (s *secrets) conceal(err error) error {
	if err == nil || len(s.values) == 0 || errors.Is(err, errNeedsAlone) {
		return err
	}
	var known *gitops.Error
	if !errors.As(err, &known) {
		if text := s.mask(err.Error()); text != err.Error() {
			return errors.New(text)
		}
		return err
	}
	if text := s.mask(known.Cause.Error()); text != known.Cause.Error() {
		masked := *known
		masked.Cause = errors.New(text)
		return &masked
	}
	return err
}

// mask replaces each part of a text that is also part of a decrypted value, in plain
// or in base64, by ***. What is quoted with escapes is found piece by piece.
func (s *secrets) mask(text string) string {
	var all bytes.Buffer
	for _, value := range s.values {
		if len(value) >= shortest {
			all.WriteString(value + "\x00" + base64.StdEncoding.EncodeToString([]byte(value)) + "\x00")
		}
	}
	index := suffixarray.New(all.Bytes())
	var b strings.Builder
	for i := 0; i < len(text); {
		end := i
		for end < len(text) && text[end] != 0 && len(index.Lookup([]byte(text[i:end+1]), 1)) > 0 {
			end++
		}
		if end-i >= shortest {
			b.WriteString("***")
			i = end
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}
